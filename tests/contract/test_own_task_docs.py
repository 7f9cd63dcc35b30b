"""docs/own-task.md shows the examples as they are, and what it says of mistakes is what is told."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from mpi_dcasgd.cli import main
from mpi_dcasgd.cli.parser import parse
from mpi_dcasgd.config.load import load_job, read_mapping
from mpi_dcasgd.config.study import load_study

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PAGE = (ROOT / "docs" / "own-task.md").read_text()
SHOWN = dict(re.findall(r"^```(?:python|yaml)\n# examples/(\S+)\n(.*?)^```", PAGE, re.S | re.M))
YAML = sorted(EXAMPLES.glob("*.yaml"))
MISTAKES = re.findall(
    r"^\$ mpi-dcasgd (train .*)\n((?:(?!\$|```).*\n)+)", PAGE.partition("\n## When ")[2], re.M
)


@pytest.fixture(autouse=True)
def _clone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in a clone, with no module of an example imported yet."""
    monkeypatch.chdir(ROOT)
    for name in ("char_model", "own_loss"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize("name", SHOWN)
def test_the_page_shows_the_files_as_they_are(name: str) -> None:
    assert SHOWN[name] == (EXAMPLES / name).read_text()


def test_the_page_shows_both_examples_with_their_jobs_and_a_study() -> None:
    assert set(SHOWN) == {
        *("char_model.py", "char_model.yaml", "compare_char_model.yaml"),
        *("own_loss.py", "own_loss.yaml"),
    }


@pytest.mark.parametrize(
    ("file", "name"), [("char_model.py", "CharModel"), ("own_loss.py", "Quantiles")]
)
def test_a_task_is_a_class_of_under_forty_lines(file: str, name: str) -> None:
    text = (EXAMPLES / file).read_text()
    (task,) = (
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    lines = text.splitlines()[task.lineno - 1 : task.end_lineno]
    assert sum(1 for line in lines if line.strip()) < 40


@pytest.mark.parametrize("file", YAML, ids=lambda file: file.name)
def test_every_job_loads_and_its_commands_are_commands(file: Path) -> None:
    is_study = "algorithms" in read_mapping(file)
    if is_study:
        assert len(load_study(file).elements) == 9
    else:
        assert load_job(file).name == file.stem
    text = file.read_text()
    for word in ("# hardware:", "# time:", "# result:"):
        assert word in text
    commands = re.findall(r"^#   mpi-dcasgd (.*?)(?:\s+\(.*)?$", text, re.M)
    assert commands
    for command in commands:
        args = parse(command.split())
        assert ROOT / (args.study if is_study else args.job) == file


def test_every_mistake_is_told_as_the_page_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(MISTAKES) == 5
    for command, told in MISTAKES:
        assert main([*command.split(), "--run-dir", str(tmp_path / "run")]) == 2, command
        found = capsys.readouterr().err
        assert "Traceback" not in found
        for line in told.splitlines():
            assert line == "..." or line in found.splitlines(), (command, found)
        assert not (tmp_path / "run").exists()


def test_no_link_is_broken() -> None:
    for target in re.findall(r"\]\(([^)#]+)#?[^)]*\)", PAGE):
        assert target.startswith("http") or (ROOT / "docs" / target).exists(), target
