"""Every command that trains leaves a checkpoint and a summary, whichever signal stops it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mpi_dcasgd
from mpi_dcasgd.drivers.signals import SIGNALS
from mpi_dcasgd.record.checkpoints import checkpoints_in
from mpi_dcasgd.record.recorder import Recorder
from mpi_dcasgd.record.trace_writer import TraceWriter
from mpi_dcasgd.runs.result import Run

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


COMMANDS: dict[str, Callable[[Path], Run]] = {
    "train": lambda folder: mpi_dcasgd.train({**TINY, "algorithm": "sgd"}, run_dir=folder),
    "simulate": simulated,
    "simulate ssgd": lambda folder: simulated(folder, "ssgd"),
    "replay with changes": replayed,
}
CASES = [
    *[("train", signum) for signum in SIGNALS],
    *[(name, signal.SIGHUP) for name in COMMANDS if name != "train"],
]


@pytest.mark.parametrize(("command", "signum"), CASES)
def test_a_signal_after_the_first_push_leaves_a_checkpoint_and_a_summary(
    command: str, signum: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine, folder = Recorder.update, tmp_path / "run"

    def update(self: Recorder, *args: Any) -> None:
        genuine(self, *args)
        if self._folder.path == folder and self._tally.updates == 1:
            signal.raise_signal(signum)

    monkeypatch.setattr(Recorder, "update", update)
    run = COMMANDS[command](folder)
    assert run.status == "interrupted"
    assert run.stopped_by == signum
    assert run.summary["reason"] == f"stopped by signal {int(signum)}"
    assert run.summary["updates"] < 50
    assert len(checkpoints_in(folder / "checkpoints")) == 1
