"""A checkpoint whose file system hangs is named, and nothing waits for it for ever."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from stop_after import StopAfter

from mpi_dcasgd.record import checkpoints
from mpi_dcasgd.record.checkpoints import CheckpointFiles, checkpoints_in
from mpi_dcasgd.record.metrics import RunProgress, read_metrics
from mpi_dcasgd.runs.train import train

WORDS = ("algorithm=sgd", "epochs=2", "model.hidden=[8]", "checkpoint={every: 1, patience_s: 0.2}")


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """No checkpoint comes further than its first byte until the event is set."""
    goes_on, genuine = threading.Event(), checkpoints.atomic_file

    @contextmanager
    def hanging(path: Path) -> Iterator[BinaryIO]:
        with genuine(path) as file:
            goes_on.wait(60)
            yield file

    monkeypatch.setattr(checkpoints, "atomic_file", hanging)
    yield goes_on
    goes_on.set()


class Clock:
    """Seconds as a test has them."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_one_that_hangs_is_told_once_and_no_other_is_begun(
    tmp_path: Path, stuck: threading.Event
) -> None:
    clock = Clock()
    files = CheckpointFiles(tmp_path, 2, 5.0, clock)
    assert files.keep(1, {"server": 1})
    clock.now_s = 4.9
    assert (files.complaint(), files.hangs) == ("", "")
    clock.now_s = 5.0
    assert not files.keep(2, {"server": 2})
    assert files.hangs == "checkpoint of update 1 hangs"
    told = files.complaint()
    assert told.startswith(f"no checkpoint: {tmp_path / 'update-000000001.pt'} hangs: nothing of ")
    assert "for 5.0 s (checkpoint.patience_s)" in told
    assert files.complaint() == ""
    assert not files.finish(), "the end of the run waits for it no more"
    files.keep_now(3, {"server": 3})
    assert "hangs" in files.complaint(), "a stop has no checkpoint, and says so"
    stuck.set()
    assert files._writing is not None
    files._writing.wait(60)
    assert files.complaint().endswith("update-000000001.pt has been written after all")
    assert files.hangs == ""
    files.keep_now(4, {"server": 4})
    assert [path.stem[-1] for path in checkpoints_in(tmp_path)] == ["4", "1"]


def test_a_slow_disk_that_writes_on_does_not_hang(tmp_path: Path) -> None:
    clock = Clock()
    written, steps = threading.Event(), threading.Semaphore(0)

    class Slow(io.BytesIO):
        def write(self, content: Any) -> int:
            steps.acquire(timeout=60)
            clock.now_s += 4.0
            written.set()
            return super().write(content)

    writing = checkpoints._Writing(
        1, tmp_path, lambda alive: checkpoints.save_sealed(torch.ones(9), Slow(), alive), clock
    )
    for _ in range(3):
        steps.release()
        written.wait(60)
        written.clear()
    assert clock.now_s >= 12.0
    steps.release(1000)
    writing.wait(60)
    assert writing.failure is None
    assert writing.silent_s <= 4.0


def test_a_run_goes_on_to_its_end_and_tells(tmp_path: Path, stuck: threading.Event) -> None:
    shown = io.StringIO()
    run = train("jobs/digits.yaml", run_dir=tmp_path / "run", words=WORDS, show=shown)
    assert run.status == "completed"
    assert run.weights()
    assert "hangs: nothing of it has been written for 0." in shown.getvalue()
    assert "hangs: nothing of it" in (run.path / "logs" / "rank-0.log").read_text()
    events = read_metrics(run.path / "metrics.jsonl")
    assert RunProgress.of(events).missing == ("checkpoint of update 90 hangs",)


def test_a_stop_goes_on_without_it_and_says_so(tmp_path: Path, stuck: threading.Event) -> None:
    words = (*WORDS, "checkpoint.every=null")
    run = train("jobs/digits.yaml", run_dir=tmp_path / "run", words=words, stop=StopAfter(9))
    assert run.status == "interrupted"
    assert run.summary["reason"].startswith("stopped by SIGUSR1; no checkpoint: ")
    assert "hangs" in run.summary["reason"]
    assert run.weights()
