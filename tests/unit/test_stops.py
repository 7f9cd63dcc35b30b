"""Every command that trains leaves a checkpoint and a summary, whichever signal stops it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import yaml
from in_process import command, handlers_as_they_were

import mpi_dcasgd
from mpi_dcasgd import cli
from mpi_dcasgd.record.checkpoints import checkpoints_in
from mpi_dcasgd.record.recorder import Recorder
from mpi_dcasgd.record.trace_writer import TraceWriter
from mpi_dcasgd.runs.result import Run
from mpi_dcasgd.stop_signals import SIGNALS

TINY: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [4]},
    "data": {"name": "synthetic", "num_train": 64, "num_test": 16, "shape": [3]},
    "epochs": 50,
    "batch_size": 8,
    "lr": 0.1,
    "checkpoint": {"every_s": None},
}


def simulated(folder: Path, algorithm: str = "asgd", **changes: Any) -> Run:
    job = {**TINY, "algorithm": algorithm, **changes}
    return mpi_dcasgd.simulate(job, workers=2, run_dir=folder, resume="never")


def replayed(folder: Path) -> Run:
    recorded = simulated(folder.parent / "recorded", epochs=10)
    trace = recorded.trace()
    writer = TraceWriter(recorded.path / "trace.bin", {**trace.meta, "driver": "mpi"})
    for r in trace.records():
        writer.add(r.worker, r.ticket, r.staleness, r.action, r.time_s, r.mark)
    writer.end("completed")
    run = mpi_dcasgd.replay(recorded, folder, lr=0.2)
    assert isinstance(run, Run)
    return run


FUNCTIONS: dict[str, Callable[[Path], Run]] = {
    "train": lambda folder: mpi_dcasgd.train({**TINY, "algorithm": "sgd"}, run_dir=folder),
    "simulate": simulated,
    "simulate ssgd": lambda folder: simulated(folder, "ssgd"),
    "replay with changes": replayed,
}
CASES = [
    *[("train", signum) for signum in SIGNALS],
    *[(name, signal.SIGHUP) for name in FUNCTIONS if name != "train"],
]


def signal_after(
    updates: int, signum: signal.Signals, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = Recorder.update

    def update(self: Recorder, *args: Any) -> None:
        genuine(self, *args)
        if self._folder.path == folder and self._tally.updates == updates:
            signal.raise_signal(signum)

    monkeypatch.setattr(Recorder, "update", update)


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """The signals that a caller's own handlers have got."""
    found: list[int] = []
    before = {s: signal.signal(s, lambda number, frame: found.append(number)) for s in SIGNALS}
    yield found
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize(("function", "signum"), CASES)
def test_a_signal_after_the_first_push_leaves_a_checkpoint_and_a_summary(
    function: str,
    signum: signal.Signals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    heard: list[int],
) -> None:
    folder = tmp_path / "run"
    signal_after(1, signum, folder, monkeypatch)
    run = FUNCTIONS[function](folder)
    assert run.status == "interrupted"
    assert run.stopped_by == signum
    # What is for the process reaches it when the run is saved.
    assert heard == ([signum] if signum in (1, 2, 15) else [])
    assert run.summary["reason"] == f"stopped by {signum.name}"
    assert run.summary["updates"] < 50
    assert len(checkpoints_in(folder / "checkpoints")) == 1


def test_a_loop_over_runs_ends_with_the_run_that_ctrl_c_has_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_after(1, signal.SIGINT, tmp_path / "0", monkeypatch)

    def loop() -> None:
        for number in range(2):
            simulated(tmp_path / f"{number}")

    with pytest.raises(KeyboardInterrupt) as caught:
        loop()
    assert caught.value.__notes__ == [
        f"{tmp_path / '0'} is saved; the same call with this run_dir resumes it"
    ]
    assert Run(tmp_path / "0").status == "interrupted"
    assert not (tmp_path / "1").exists()


LAST = 8  # update of the one epoch of these runs


@pytest.mark.parametrize("algorithm", ["sgd", "asgd"])
def test_a_run_that_completes_was_stopped_by_nothing(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: list[int]
) -> None:
    folder = tmp_path / "run"
    signal_after(LAST, signal.SIGTERM, folder, monkeypatch)
    if algorithm == "sgd":
        run = mpi_dcasgd.train({**TINY, "algorithm": "sgd", "epochs": 1}, run_dir=folder)
    else:
        run = simulated(folder, epochs=1)
    assert heard == [signal.SIGTERM]
    assert (run.status, run.stopped_by, run.summary["updates"]) == ("completed", None, LAST)


@pytest.mark.parametrize("words", [("train", "algorithm=sgd"), ("simulate", "workers=2")])
def test_a_signal_as_a_run_completes_makes_no_scheduler_start_it_again(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, folder = tmp_path / "job.yaml", tmp_path / "run"
    job.write_text(yaml.safe_dump({**TINY, "algorithm": "asgd", "epochs": 1}))
    signal_after(LAST, signal.SIGUSR1, folder, monkeypatch)
    assert command(words[0], str(job), *words[1:], "--run-dir", str(folder)) == 0
    assert Run(folder).summary["updates"] == LAST


def test_a_signal_while_the_process_ends_does_not_change_its_status() -> None:
    def mine(number: int, frame: FrameType | None) -> None: ...

    with handlers_as_they_were():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, mine)
        cli._decide()
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) is mine
