"""A run that is started again by its launcher, whatever was killed."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.replay import replay
from mpi_dcasgd.server.records import Action

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(180)]

EPOCHS, TICKETS_PER_EPOCH = 60, 90


def test_a_run_whose_launcher_and_server_are_killed_completes_by_itself(
    processes: Any, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    words = ["algorithm=asgd", "model.hidden=[16]", f"epochs={EPOCHS}", "record.log_every_s=0.01"]
    argv = ["run", "-n", "2", "--restarts", "2", "jobs/digits.yaml", "--run-dir", folder.path]
    started = processes.start(
        [sys.executable, "-m", "mpi_dcasgd", *argv, *words, "checkpoint.every=10"]
    )

    def until(condition: Any) -> None:
        processes.wait_until(started, condition)

    def told(kind: str, **values: Any) -> bool:
        """Whether there is an event; metrics are written while they are read."""
        try:
            lines = folder.metrics_jsonl.read_text().splitlines()[:-1]
        except OSError:
            return False
        events = map(json.loads, lines)
        return any(e["event"] == kind and values.items() <= e.items() for e in events)

    def rank_0() -> psutil.Process:
        found: psutil.Process = next(
            process
            for process in processes.alive()
            if process.environ().get("OMPI_COMM_WORLD_RANK") == "0"
        )
        return found

    until(lambda: told("progress"))
    rank_0().parent().send_signal(signal.SIGKILL)  # mpirun
    until(lambda: told("restart", restart=1) and told("resume"))
    rank_0().send_signal(signal.SIGKILL)
    finished = processes.finish(started)

    assert finished.status == 0, finished
    first, second = folder.restarts()
    assert first.cause == "the launcher was killed by SIGKILL"
    # Nothing is lost with mpirun: the server has saved the run when it was gone.
    assert first.version is not None
    assert first.version > 0
    assert second.cause.startswith("rank 0 on ")
    assert second.cause.endswith(" was killed by SIGKILL")
    assert f"restart 1 of 2 in 1 s: {first.cause}; resuming at update" in finished.stderr
    summary = folder.summary()
    assert (summary["status"], summary["restarts"]) == ("completed", 2)
    applied = Counter(r.ticket for r in folder.trace().records() if r.action is Action.APPLIED)
    assert applied == Counter(range(EPOCHS * TICKETS_PER_EPOCH))
    assert replay(folder.path).identical
