"""What exit status a run's folder tells of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.tools.launch.exit_status import RunEnd


def tell(folder: Path, **summary: str) -> None:
    RunFolder(folder).write_summary(summary)


def test_a_status_that_tells_of_no_signal_is_that_of_the_one_that_stopped_the_run(
    tmp_path: Path,
) -> None:
    end = RunEnd(tmp_path)
    assert end.exit_status(0) == 0
    tell(tmp_path, status="interrupted", reason="stopped by SIGUSR1")
    assert end.exit_status(0) == 138
    assert end.exit_status(213) == 213
    assert end.exit_status(1) == 138
    tell(tmp_path, status="interrupted", reason="")
    assert end.exit_status(0) == 143
    tell(tmp_path, status="completed")
    late = (0, 1, 137, 143, 152)  # a worker died, or a request to stop came when all was done
    assert [end.exit_status(status) for status in late] == [0] * len(late)
    tell(tmp_path, status="failed")
    assert end.exit_status(1) == 1


@pytest.mark.parametrize("reason", ["stopped by SIGUSR1", ""])
def test_a_start_that_fails_is_not_told_as_the_stop_of_the_one_before(
    tmp_path: Path, reason: str
) -> None:
    tell(tmp_path, status="interrupted", reason=reason)
    end = RunEnd(tmp_path)
    assert end.exit_status(2) == 2
    assert end.exit_status(0) == 0
    assert not end.completed
    tell(tmp_path, status="interrupted", reason=reason)  # the same again, by this start
    assert end.exit_status(1) in (138, 143)


def test_a_run_that_an_earlier_start_completed_is_not_this_ones(tmp_path: Path) -> None:
    tell(tmp_path, status="completed")
    end = RunEnd(tmp_path)
    assert not end.completed
    tell(tmp_path, status="completed")
    assert end.completed


@pytest.mark.parametrize(
    ("summary", "status"),
    [
        ({"status": "completed"}, 0),
        ({"status": "interrupted", "reason": "stopped by SIGTERM"}, 143),
        ({"status": "interrupted", "reason": "stopped by SIGUSR1; no checkpoint: disk full"}, 138),
        ({"status": "interrupted", "reason": "stopped by signal 63"}, 191),
        ({"status": "interrupted", "reason": "stopped by signal 10"}, 138),  # earlier versions'
        ({"status": "failed", "reason": "NonFiniteError"}, 1),
    ],
)
def test_a_run_is_over_when_its_summary_is_there(
    tmp_path: Path, summary: dict[str, str], status: int
) -> None:
    end = RunEnd(tmp_path)
    assert end.status() is None
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert end.status() == status


def test_what_an_earlier_start_told_is_not_this_ones_end(tmp_path: Path) -> None:
    earlier = {"status": "interrupted", "reason": "stopped by SIGUSR1", "wall_s": 1.0}
    (tmp_path / "summary.json").write_text(json.dumps(earlier))
    end = RunEnd(tmp_path)
    assert end.status() is None
    (tmp_path / "summary.json").unlink()
    assert end.status() is None
    (tmp_path / "summary.json").write_text(json.dumps({**earlier, "wall_s": 2.0}))
    assert end.status() == 138
