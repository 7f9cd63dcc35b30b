"""The job that the study of ResNet-50 sends through SLURM: starts, queue, and what it tells."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mpi_dcasgd.errors import DcasgdError
from mpi_dcasgd.record.slurm_folder import SlurmFolder, Submission
from mpi_dcasgd.tools.results import imagenet_slurm
from mpi_dcasgd.tools.results.imagenet_slurm import told, way, way_table
from mpi_dcasgd.tools.results.kept import Kept
from mpi_dcasgd.tools.slurm.states import Answer, JobState


class Finished:
    """What ``told`` reads of a run that was resumed twice."""

    def trace(self, *, strict: bool) -> Any:
        assert strict
        restarts = (SimpleNamespace(records=3), SimpleNamespace(records=8))

        class Trace:
            ticket = np.array([0, 1, 2, 4, 3, 5, 6, 7, 8, 9])
            restarts: Sequence[Any] = ()

            def __len__(self) -> int:
                return len(self.ticket)

        made = Trace()
        made.restarts = restarts
        return made

    def summary(self) -> dict[str, Any]:
        its = {"epochs": 5, "num_samples": 16, "batch_size": 8, "samples": 80}
        return {**its, "test_error": 0.125}

    def metrics(self) -> list[dict[str, Any]]:
        began = [("start", 9.04), ("progress", 0.0), ("resume", 12.3), ("resume", 7.0)]
        return [{"event": event, "startup_s": seconds} for event, seconds in began]


def test_each_start_goes_on_where_the_one_before_has_ended() -> None:
    row = told(Finished())  # type: ignore[arg-type]
    assert [(start["from"], start["until"]) for start in row["starts"]] == [(0, 3), (3, 8), (8, 10)]
    assert row["tickets"] == 10
    lines = way_table([row]).splitlines()[2:]
    assert "| 1 | 9 s | the beginning | epoch 1.5, 3 updates | back into the queue |" in lines
    assert "| 3 | 7 s | epoch 4, 8 updates | epoch 5, 10 updates | the end |" in lines


@pytest.mark.parametrize(
    ("short", "size", "reason"),
    [
        (True, 1001, "it is not part of the short form"),
        (False, 1001, "found no sbatch on PATH"),
        (False, None, "SLURM does not answer"),
    ],
)
def test_where_there_is_no_slurm_this_is_told(
    short: bool, size: int | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if size is None:
        (tmp_path / "sbatch").touch(0o755)
        monkeypatch.setattr(imagenet_slurm, "max_array_size", lambda: size)
    shown = io.StringIO()
    assert way(Kept(tmp_path, shown), short=short) == []
    assert f"left out: {reason}" in shown.getvalue()


def test_a_job_is_waited_for_through_requeues_and_missed_if_it_left_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = JobState("RUNNING", restarts=1, active=True)
    # Done for a moment between its end and its requeue; SLURM silent; over.
    between, over = JobState("COMPLETED"), JobState("COMPLETED", restarts=1)
    answers = [
        Answer({"7": running}),
        Answer({"7": between}),
        Answer({"7": running}),
        Answer(silence="squeue: no answer"),
        Answer({"7": over}),
        Answer({}),
    ]
    left = iter([Answer({}), *answers])
    folder = tmp_path / "imagenet"
    (tmp_path / "images").mkdir()

    def submit(*words: str) -> None:
        assert words[0] == "submit"
        assert str(folder) in words
        slurm = SlurmFolder(folder)
        slurm.path.mkdir(parents=True)
        slurm.remember(Submission("7", "submit-1.sbatch"))

    monkeypatch.setattr(imagenet_slurm, "max_array_size", lambda: 1001)
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr(imagenet_slurm, "printed", submit)
    monkeypatch.setattr(imagenet_slurm, "job_states", lambda ids: next(left))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    shown = io.StringIO()
    with pytest.raises(DcasgdError, match=r"COMPLETED.*not finished; its logs are in .*slurm"):
        way(Kept(tmp_path, shown), short=False)
    assert next(left, None) is None
    assert [line.partition(": ")[2] for line in shown.getvalue().splitlines()] == [
        "RUNNING",
        "COMPLETED",
        "RUNNING",
        "squeue: no answer",
        "COMPLETED",
        "has left the queue",
    ]
