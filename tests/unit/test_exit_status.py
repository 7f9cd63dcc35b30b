"""What exit status a run's folder tells of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mpi_dcasgd.tools.launch.exit_status import RunEnd, interrupted_status


def test_a_status_that_tells_of_no_signal_is_that_of_the_one_that_stopped_the_run(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    assert interrupted_status(0, folder) == 0
    (folder / "summary.json").write_text(
        json.dumps({"status": "interrupted", "reason": "stopped by signal 10"})
    )
    assert interrupted_status(0, folder) == 138
    assert interrupted_status(213, folder) == 213
    assert interrupted_status(1, folder) == 138
    (folder / "summary.json").write_text(json.dumps({"status": "interrupted", "reason": ""}))
    assert interrupted_status(0, folder) == 143
    (folder / "summary.json").write_text(json.dumps({"status": "completed"}))
    assert interrupted_status(0, folder) == 0
    (folder / "summary.json").write_text(json.dumps({"status": "failed"}))
    assert interrupted_status(1, folder) == 1


@pytest.mark.parametrize(
    ("summary", "status"),
    [
        ({"status": "completed"}, 0),
        ({"status": "interrupted", "reason": "stopped by signal 10"}, 138),
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
    earlier = {"status": "interrupted", "reason": "stopped by signal 10", "wall_s": 1.0}
    (tmp_path / "summary.json").write_text(json.dumps(earlier))
    end = RunEnd(tmp_path)
    assert end.status() is None
    (tmp_path / "summary.json").unlink()
    assert end.status() is None
    (tmp_path / "summary.json").write_text(json.dumps({**earlier, "wall_s": 2.0}))
    assert end.status() == 138
