"""docs/python.md and examples/ do what they say."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "docs" / "python.md").read_text()
BLOCKS = re.findall(r"^```python( mpi)?\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
EXAMPLES = sorted(path.name for path in (REPOSITORY / "examples").glob("*.py"))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder that has the jobs, as a clone has."""
    (tmp_path / "jobs").symlink_to(REPOSITORY / "jobs")
    return tmp_path


def script(folder: Path, *, mpi: bool) -> Path:
    """The blocks of one kind as a program, each with the line that it begins in."""
    lines = []
    for kind, block in BLOCKS:
        if bool(kind) == mpi:
            begins = TEXT[: TEXT.index(block)].count("\n") + 1
            lines.append(f"# docs/python.md, line {begins}\n{block}")
    path = folder / "blocks.py"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.slow
def test_the_blocks_without_mpi_run(clone: Path, processes: Any) -> None:
    env = {"PYTHONPATH": str(REPOSITORY)}
    finished = processes.run([sys.executable, script(clone, mpi=False)], cwd=clone, env=env)
    assert finished.status == 0, finished
    assert "completed" in finished.stdout
    assert "epochs: got 'many'" in finished.stdout
    assert "slow: 100%" in finished.stdout
    assert "Traceback" not in finished.stderr
    assert (clone / "runs" / "report" / "report.md").is_file()


@pytest.mark.mpi
@pytest.mark.horovod
@pytest.mark.timeout(180)
def test_the_blocks_with_mpi_run(clone: Path, shared_world: Callable[..., Any]) -> None:
    first, *_ = shared_world("world_calls:script", script(clone, mpi=True), cwd=clone, timeout=150)
    assert "identical: " in first.stdout
    assert (clone / "runs" / "side-by-side" / "ssgd" / "summary.json").is_file()


def test_every_example_is_run_by_a_test() -> None:
    ours, tasks = ["api.py", "train_mpi.py"], ["char_model.py", "own_loss.py"]
    # api.py: test_wheel.py, where it has nothing but the wheel; tasks: test_own_task_docs.py
    assert sorted([*ours, *tasks]) == EXAMPLES


@pytest.mark.mpi
def test_the_mpi_example_trains_two_halves(
    tmp_path: Path, shared_world: Callable[..., Any]
) -> None:
    program = REPOSITORY / "examples" / "train_mpi.py"
    first, *others = shared_world("world_calls:script", program, tmp_path)
    assert {answer.stdout for answer in others} == {""}
    lines = [line.partition(":")[0] for line in first.stdout.splitlines()]
    assert lines == ["asgd", "dcasgd-a"]
