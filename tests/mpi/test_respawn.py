"""New processes take the places of workers that died (``faults.respawn``), in one real launch."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from mpi_dcasgd.record.metrics import read_metrics
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.trace import read_trace
from mpi_dcasgd.runs.replay import replay
from mpi_dcasgd.server.records import Action

pytestmark = [pytest.mark.mpi, pytest.mark.ulfm, pytest.mark.timeout(180)]

EPOCHS, TICKETS_PER_EPOCH = 6, 90
HOST = os.uname().nodename
JOB = (
    *("jobs/digits.yaml", "algorithm=dana", "model.hidden=[16]", f"epochs={EPOCHS}", "ahead=2"),
    *("faults.respawn=true", "chunk_mb=0.001", "checkpoint={every: null, every_s: null}"),
    *("record={log_every_s: 0.1}", "inject={delays: {model: constant, mean_s: 0.02}}"),
)


def events(run: Path) -> list[dict[str, Any]]:
    try:
        return list(read_metrics(run / "metrics.jsonl"))
    except Exception:  # it is not there yet, or its last line is being written
        return []


def texts(run: Path) -> str:
    return "\n".join(event.get("text", "") for event in events(run))


def test_workers_that_die_are_replaced_even_if_none_is_left_and_nothing_is_lost(
    processes: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    argv = ["-m", "mpi_dcasgd", "run", "-n", "3", "--fault-tolerant", *JOB, "--run-dir", str(run)]
    process = processes.start([sys.executable, *argv])

    def until(condition: Callable[[], Any]) -> None:
        processes.wait_until(process, condition)

    def ranks(module: str) -> list[psutil.Process]:
        return [each for each in processes.alive() if module in each.cmdline()]

    until(lambda: any(event["event"] == "progress" for event in events(run)))
    workers = [p for p in ranks("train") if p.environ().get("OMPI_COMM_WORLD_RANK") in ("1", "2")]
    assert len(workers) == 2
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
    # Both are gone, so that the run needs those that come. One of these dies while it sets itself
    # up, and another takes its place.
    until(lambda: (run / "logs" / "rank-1-1.log").exists())
    log = str(run / "logs" / "rank-1-1.log")
    (victim,) = [
        process
        for process in ranks("mpi_dcasgd.runs.newcomer")
        if log in [file.path for file in process.open_files()]
    ]
    victim.send_signal(signal.SIGKILL)
    finished = processes.finish(process)
    assert finished.status == 0, finished
    told = texts(run)
    assert f"worker 0 (rank 1 on {HOST}) died" in told
    assert "0 of 2 workers are left" in told
    assert f"in place of worker 0 (rank 1 on {HOST}) failed: it died" in told
    new = f"worker 0 (replacement 2 on {HOST}) trains in place of worker 0 (rank 1 on {HOST})"
    assert new in told
    assert new in finished.stdout
    assert f"worker 1 (replacement 1 on {HOST}) trains in place of" in told
    summary = RunFolder(run).summary()
    assert summary["status"] == "completed", finished
    trace = read_trace(run / "trace.bin", strict=True)
    applied = Counter(r.ticket for r in trace.records() if r.action is Action.APPLIED)
    assert applied == Counter(range(EPOCHS * TICKETS_PER_EPOCH))
    assert replay(run).identical
    assert "replacement 2 of worker 0" in (run / "logs" / "rank-1-2.log").read_text()
