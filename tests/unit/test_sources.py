"""Sources of a user's own code: recorded, copied, and told when they have changed."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from disguise import disguise
from in_process import command

import mpi_dcasgd
from mpi_dcasgd import modules, sources
from mpi_dcasgd.errors import ConfigError, RunFolderError
from mpi_dcasgd.record.run_folder import RunFolder

TASK = """
import torch
from torch import nn
from mpi_dcasgd import Task
from src_help import slope


class Line(Task):
    def __init__(self, points: int = 50):
        self.points = points

    def model(self):
        return nn.Linear(1, 1)

    def train_data(self):
        x = torch.linspace(0, 1, self.points)[:, None]
        return x, slope() * x + 1

    def test_data(self):
        return self.train_data()

    def loss(self, model, batch):
        x, y = batch
        return (model(x) - y).square().mean()
"""
HELP = "def slope():\n    import src_lazy\n\n    return src_lazy.SLOPE\n"
JOB = (
    "algorithm: asgd\nepochs: 2\nbatch_size: 8\nlr: 0.01\n"
    "task: {name: 'src_task:Line', points: 32}\ncheckpoint: {every: 1}\n"
)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A folder with a job, its task, and what the task imports, at once and later on."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "src_task.py").write_text(TASK)
    (folder / "src_help.py").write_text(HELP)
    (folder / "src_lazy.py").write_text("SLOPE = 3\n")
    (folder / "src_unused.py").write_text("1 / 0\n")
    (folder / "job.yaml").write_text(JOB)
    yield folder
    for name in [name for name in sys.modules if name.startswith("src_")]:
        del sys.modules[name]
        modules._served.pop(name, None)


@pytest.fixture
def run(project: Path, tmp_path: Path) -> RunFolder:
    """A run that replay takes for a real one."""
    made = mpi_dcasgd.simulate(project / "job.yaml", workers=2, run_dir=tmp_path / "run")
    disguise(made.path)
    return RunFolder(made.path)


def test_a_run_names_its_sources_and_keeps_copies(project: Path, run: RunFolder) -> None:
    recorded = run.environment()["code"]
    assert {each["module"] for each in recorded} == {"src_task", "src_help", "src_lazy"}
    for each in recorded:
        file = project / f"{each['module']}.py"
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert (each["file"], each["sha256"]) == (str(file), digest)
        assert (run.code / file.name).read_bytes() == file.read_bytes()
    assert len(list(run.code.rglob("*"))) == 3


def test_a_job_without_code_of_its_own_has_none(tmp_path: Path) -> None:
    run = mpi_dcasgd.simulate(
        "jobs/digits.yaml", workers=2, epochs=1, run_dir=tmp_path, model={"name": "mlp"}
    )
    folder = RunFolder(run.path)
    assert (folder.environment()["code"], folder.code.exists()) == ([], False)


def test_large_files_and_installed_ones_are_not_copied(project: Path, tmp_path: Path) -> None:
    with open(project / "src_lazy.py", "a") as file:
        file.write(f"TABLE = '{'x' * (1 << 20)}'\n")
    job = project / "job.yaml"
    run = mpi_dcasgd.simulate(job, workers=2, run_dir=tmp_path / "run", **{"record.sinks": ["csv"]})
    names = {file.name for file in RunFolder(run.path).code.iterdir()}
    assert names == {"src_task.py", "src_help.py"}


def test_a_replay_says_what_has_changed(project: Path, run: RunFolder) -> None:
    before = mpi_dcasgd.replay(run.path)
    assert before.identical, before
    assert before.code_changes == ()
    with open(project / "src_help.py", "a") as file:
        file.write("# a remark\n")
    after = mpi_dcasgd.replay(run.path)
    assert after.identical
    line = f"src_help ({project}/src_help.py) has changed since the run"
    assert after.code_changes == (line,)
    assert str(after).splitlines()[1:] == [line]
    (project / "src_lazy.py").write_text("SLOPE = 4.5\n")
    different = mpi_dcasgd.replay(run.path)
    assert not different
    assert str(different).startswith("DIFFERENT from ")
    assert len(different.code_changes) == 2
    assert mpi_dcasgd.replay(run.path, code="recorded").identical
    assert mpi_dcasgd.replay(run.path, code="recorded").code_changes == ()


def test_a_replay_with_changes_says_it_in_the_new_run(
    project: Path, run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "src_lazy.py").write_text("SLOPE = 4.5\n")
    words = ("replay", str(run.path), "lr=0.02", "--run-dir", str(tmp_path / "new"))
    # The slope is of the data: both have changed, and only one of them may without a word.
    assert command(*words) == 2
    assert "its data have changed" in capsys.readouterr().err
    assert command(*words, "checkpoint.other_data=accept") == 0
    assert "src_lazy.py) has changed since the run" in capsys.readouterr().out
    words = ("replay", str(run.path), "lr=0.02", "--code", "recorded", "--overwrite")
    assert command(*words, "--run-dir", str(tmp_path / "new")) == 0
    assert "has changed" not in capsys.readouterr().out


def test_code_that_is_gone_is_told_with_where_it_was(project: Path, run: RunFolder) -> None:
    shutil.rmtree(project)
    with pytest.raises(ConfigError) as caught:
        mpi_dcasgd.replay(run.path)
    name, code = caught.value.problems
    assert name.startswith("task.name: cannot import src_task:Line: No module named 'src_task'")
    assert f"{project}/src_task.py" in code
    assert f"{run.code} has copies: --code recorded" in code
    assert mpi_dcasgd.replay(run.path, code="recorded").identical
    shutil.rmtree(run.code)
    with pytest.raises(RunFolderError, match="has no copies of modules"):
        mpi_dcasgd.replay(run.path, code="recorded")


def test_code_that_has_moved_is_found_where_it_is_said_to_be(
    project: Path, run: RunFolder, tmp_path: Path
) -> None:
    project.rename(tmp_path / "moved")
    found = mpi_dcasgd.replay(run.path, code=tmp_path / "moved")
    assert (found.identical, found.code_changes) == (True, ())


def test_a_run_that_is_resumed_says_what_has_changed_and_keeps_both(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, folder = str(project / "job.yaml"), tmp_path / "run"
    words = ("simulate", job, "workers=2", "--run-dir", str(folder))
    assert command(*words) == 0
    RunFolder(folder).summary_json.unlink()  # as if it had been killed
    (project / "src_lazy.py").write_text("SLOPE = 4.5\n")
    capsys.readouterr()
    assert command(*words, "checkpoint.other_data=accept", "--resume") == 0
    assert f"src_lazy ({project}/src_lazy.py) has changed since the run" in capsys.readouterr().out
    assert (folder / "code-1" / "src_lazy.py").read_text() == "SLOPE = 3\n"
    assert (folder / "code" / "src_lazy.py").read_text() == "SLOPE = 4.5\n"
    disguise(folder)
    (line,) = mpi_dcasgd.replay(folder).code_changes
    assert line.endswith("was changed in the course of the run")


def test_what_was_typed_into_a_notebook_is_kept_as_far_as_python_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import linecache

    main = sys.modules["__main__"]
    text = "class Cell:\n    pass\n"
    linecache.cache["<cell>"] = (len(text), None, text.splitlines(True), "<cell>")
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text + "    def f(self): pass\n", "<cell>", "exec"), space)
    monkeypatch.setattr(main, "Cell", space["Cell"], raising=False)
    monkeypatch.setattr(main, "__file__", "<stdin>", raising=False)
    (source,) = sources.sources_of(["__main__:Cell"])
    assert (source.module, source.file) == ("__main__", "")
    json.dumps(source.sha256)


def test_examples_are_true() -> None:
    import doctest

    found = doctest.testmod(sources)
    assert found.attempted > 0
    assert found.failed == 0
