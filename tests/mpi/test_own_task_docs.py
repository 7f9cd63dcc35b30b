"""Every command of docs/own-task.md does what the page shows, and learns what the example says.

Commands that start a world are given to the one that all tests share, and the others to this
process: nothing but who executes them is changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_process import command

from mpi_dcasgd.tools.launch import world
from mpi_dcasgd.tools.launch.mpirun import MpirunCommand

pytestmark = [pytest.mark.mpi, pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own-task.md").read_text()
COMMANDS = re.findall(
    r"^\$ mpi-dcasgd (.*)\n((?:(?!\$|```).*\n)+)", PAGE.partition("\n## When ")[0], re.M
)

# What a gradient that is wrong does not reach: characters at their frequencies take 4.66 bits, and
# quantiles that are the same for all patients have a loss of 0.205.
BITS, PINBALL = 4.2, 0.17


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has what a clone has; the commands follow each other in it."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("examples", "docs"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture
def _in_the_shared_world(
    clone: Path, shared_world: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(to_run: MpirunCommand, **options: Any) -> world.WorldEnd:
        ranks = int(to_run.argv[to_run.argv.index("-n") + 1])
        _, job, *words = to_run.argv[to_run.argv.index("train") :]
        place = words.index("--run-dir")
        path = words[place + 1]
        del words[place : place + 2]
        words = [word for word in words if not word.startswith("--")]
        answers = shared_world(
            "world_calls:train", job, [(path, words)], ranks=ranks, cwd=clone, timeout=150
        )
        ends = [answer.value for answer in answers]
        return world.WorldEnd(0 if ends == ranks * [["completed"]] else 1)

    monkeypatch.chdir(clone)
    monkeypatch.setattr(world, "run_world", run)


def result(run: Path) -> float:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    assert found["status"] == "completed"
    return float(found[f"test_{found['primary_metric']}"])


def shown(line: str) -> str:
    """A line without the numbers that depend on the machine and on chance."""
    return re.sub(r"[0-9a-f]{16}|[\d.,]+", "#", " ".join(line.split()))


def test_the_page_trains_replays_simulates_compares_and_reports_both() -> None:
    first = [each.split()[0] for each, _ in COMMANDS]
    assert first.count("run") == first.count("replay") == first.count("simulate") == 2
    assert first.count("compare") == 3
    assert first[-1] == "report"


@pytest.mark.horovod
@pytest.mark.usefixtures("_in_the_shared_world")
@pytest.mark.parametrize(("words", "output"), COMMANDS, ids=[each for each, _ in COMMANDS])
def test_a_command_does_what_the_page_shows(
    words: str, output: str, clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*words.split()) == 0
    told = [shown(line) for line in capsys.readouterr().out.splitlines()]
    if not words.startswith("run "):  # whose ranks print it
        wanted = [line for line in output.splitlines() if line != "..."]
        assert [line for line in wanted if shown(line) not in told] == []
    for path in re.findall(r"--run-dir (\S+)", words):
        assert result(clone / path) < (BITS if "char" in path else PINBALL)
    if words.startswith("compare ") and "--dry-run" not in words:
        runs = sorted((clone / "runs" / Path(words.split()[1]).stem).glob("*-w4-s*"))
        assert len(runs) == 9
        bound = BITS if "char" in words else PINBALL
        assert {run.name: result(run) for run in runs if not result(run) < bound} == {}
