"""Workers that hang (SIGSTOP) are named and given up, and nobody waits for them."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from mpi_dcasgd.record.checkpoints import checkpoints_in
from mpi_dcasgd.record.metrics import read_metrics
from mpi_dcasgd.record.trace import read_trace
from mpi_dcasgd.runs.replay import replay
from mpi_dcasgd.runs.status import status
from mpi_dcasgd.server.records import Action

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(180)]

JOB = "jobs/digits.yaml"
HOST = os.uname().nodename
TICKETS_PER_EPOCH = 90


class Hanging:
    """A run of which ranks can be stopped and continued."""

    def __init__(self, processes: Any, run: Path, *words: str, ranks: int = 4, ft: bool = False):
        self.run = run
        self._processes = processes
        argv = ["-m", "mpi_dcasgd", "run", "-n", str(ranks), JOB, "--run-dir", str(run)]
        argv += ["--fault-tolerant"] if ft else []
        changes = ("model.hidden=[16]", "algorithm=asgd", "checkpoint={every: null, every_s: null}")
        self.process = processes.start([sys.executable, *argv, *changes, *words])

    def rank(self, number: int) -> psutil.Process:
        for process in self._processes.alive():
            if process.environ().get("OMPI_COMM_WORLD_RANK") == str(number):
                found: psutil.Process = process
                return found
        raise AssertionError(f"no rank {number}")

    def events(self, kind: str) -> list[dict[str, Any]]:
        try:
            return [e for e in read_metrics(self.run / "metrics.jsonl") if e["event"] == kind]
        except Exception:  # it is not there yet, or its last line is being written
            return []

    def until(self, condition: Callable[[], Any]) -> None:
        self._processes.wait_until(self.process, condition)

    def until_training(self) -> None:
        self.until(lambda: self.events("progress"))

    def until_fault(self, number: int = 1) -> dict[str, Any]:
        self.until(lambda: len(self.events("fault")) >= number)
        return self.events("fault")[number - 1]

    def finish(self) -> Any:
        return self._processes.finish(self.process)

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run / "summary.json").read_text())
        return found

    def check_whole(self, epochs: int) -> None:
        """Every ticket was applied exactly once, and a replay comes to the same weights."""
        assert self.summary()["status"] == "completed"
        trace = read_trace(self.run / "trace.bin", strict=True)
        applied = Counter(r.ticket for r in trace.records() if r.action is Action.APPLIED)
        assert applied == Counter(range(epochs * TICKETS_PER_EPOCH))
        assert replay(self.run).identical


FAST_RECORD = "record={log_every_s: 0.1}"
SLOW = "inject={delays: {model: constant, mean_s: 0.02}}"


@pytest.mark.parametrize("ft", [False, pytest.param(True, marks=pytest.mark.ulfm)])
def test_a_worker_that_hangs_is_named_and_given_up_and_the_run_completes(
    processes: Any, tmp_path: Path, ft: bool
) -> None:
    epochs = 12
    run = Hanging(
        processes,
        tmp_path / "run",
        f"epochs={epochs}",
        "faults.patience=2",
        "ahead=2",
        FAST_RECORD,
        SLOW,
        ft=ft,
    )
    run.until_training()
    run.rank(2).send_signal(signal.SIGSTOP)
    fault = run.until_fault()
    assert fault["text"].startswith(
        f"worker 1 (rank 2 on {HOST}) hangs: nothing came from it for 2"
    )
    assert "2 of 3 workers are left" in fault["text"]
    ((told,),) = status([run.run]).values()
    if told.state == "running":
        assert told.reason == f"worker 1 (rank 2 on {HOST}) hangs"
    finished = run.finish()
    assert finished.status == 0, finished
    assert fault["text"] in finished.stdout
    assert fault["text"] in (run.run / "logs" / "rank-0.log").read_text()
    run.check_whole(epochs)


def test_a_worker_that_comes_back_is_taken_up_again_and_nothing_is_applied_twice(
    processes: Any, tmp_path: Path
) -> None:
    epochs = 40
    run = Hanging(
        processes,
        tmp_path / "run",
        f"epochs={epochs}",
        "faults.patience=1",
        "ahead=2",
        FAST_RECORD,
        SLOW,
    )
    run.until_training()
    hung = run.rank(1)
    hung.send_signal(signal.SIGSTOP)
    fault = run.until_fault()
    pushes = fault["time_s"]
    hung.send_signal(signal.SIGCONT)
    back = run.until_fault(2)
    assert back["text"].startswith(f"worker 0 (rank 1 on {HOST}) is back;")
    assert back["missing"] == []
    finished = run.finish()
    assert finished.status == 0, finished
    run.check_whole(epochs)
    trace = read_trace(run.run / "trace.bin")
    late = [r for r in trace.records() if r.worker == 0 and r.time_s > pushes]
    assert late, "it goes on with new work"


def test_a_pause_that_is_shorter_than_the_patience_is_nobodys_business(
    processes: Any, tmp_path: Path
) -> None:
    run = Hanging(processes, tmp_path / "run", "epochs=10", FAST_RECORD, SLOW)
    run.until_training()
    paused = run.rank(3)
    paused.send_signal(signal.SIGSTOP)
    seen = len(run.events("progress"))
    run.until(lambda: len(run.events("progress")) > seen + 3)
    paused.send_signal(signal.SIGCONT)
    finished = run.finish()
    assert finished.status == 0, finished
    assert run.events("fault") == []
    run.check_whole(10)


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR2])
def test_a_stop_does_not_wait_for_a_worker_that_hangs(
    processes: Any, tmp_path: Path, signum: signal.Signals
) -> None:
    run = Hanging(processes, tmp_path / "run", "epochs=100000", FAST_RECORD, SLOW, ranks=3)
    run.until_training()
    run.rank(2).send_signal(signal.SIGSTOP)
    run.process.send_signal(signum)
    run.until(lambda: checkpoints_in(run.run / "checkpoints"))
    assert run.events("fault") == [], "its state is saved before workers are waited for"
    finished = run.finish()
    assert finished.status == 128 + signum, finished
    assert run.summary()["status"] == "interrupted"
    assert f"stopped by {signum.name}" in run.summary()["reason"]
    assert (run.run / "weights.pt").is_file()
    assert "worker 1" in run.events("fault")[0]["text"]


@pytest.mark.ulfm
def test_under_fault_tolerance_a_slow_worker_costs_a_stop_nothing(
    processes: Any, tmp_path: Path
) -> None:
    slow = "inject={delays: {model: constant, mean_s: 0.02}, slow: {1: 150}}"  # steps of 3 s
    run = Hanging(processes, tmp_path / "run", "epochs=100000", FAST_RECORD, slow, ranks=3, ft=True)
    run.until_training()
    run.process.send_signal(signal.SIGUSR1)
    finished = run.finish()
    assert finished.status == 128 + signal.SIGUSR1, finished
    assert run.summary()["status"] == "interrupted"
    assert checkpoints_in(run.run / "checkpoints")
    assert run.events("fault") == []


def test_the_last_worker_is_waited_for_longer_and_then_the_state_is_saved(
    processes: Any, tmp_path: Path
) -> None:
    patience = "faults.patience=0.5"
    run = Hanging(
        processes, tmp_path / "run", "epochs=100000", patience, FAST_RECORD, SLOW, ranks=2
    )
    run.until_training()
    run.rank(1).send_signal(signal.SIGSTOP)
    assert "no other worker is left to take its tickets" in run.until_fault()["text"]
    finished = run.finish()
    assert finished.status == 1, finished
    assert "no worker is left" in finished.stderr
    assert "hangs: nothing came from it for" in run.events("fault")[1]["text"]
    assert checkpoints_in(run.run / "checkpoints")


@pytest.mark.horovod
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("backend", ["horovod", "ddp"])
def test_a_rank_of_a_group_that_hangs_is_named_and_the_run_ends_and_resumes(
    processes: Any, tmp_path: Path, backend: str, number: int
) -> None:
    words = ("algorithm=ssgd", f"sync.backend={backend}", "faults.patience=2", FAST_RECORD, SLOW)
    often = ("checkpoint={every: 1}",) if number == 0 else ()
    run = Hanging(processes, tmp_path / "run", "epochs=100000", *words, *often, ranks=2)
    run.until_training()
    if number == 0:
        run.until(lambda: checkpoints_in(run.run / "checkpoints"))
    run.rank(number).send_signal(signal.SIGSTOP)
    finished = run.finish()
    assert f"rank {number} on {HOST} hangs: the others have waited for " in finished.stderr
    assert finished.status == 128 + signal.SIGTERM, finished
    if number == 1:  # or nobody is there to write it
        assert run.summary()["status"] == "interrupted"
        assert f"rank 1 on {HOST} hangs" in run.summary()["reason"]
    again = Hanging(processes, run.run, "epochs=100000", *words, *often, ranks=2)
    again.until(lambda: any("resumed after" in e["text"] for e in again.events("message")))
    seen = len(again.events("progress"))
    again.until(lambda: len(again.events("progress")) > seen)
    again.process.send_signal(signal.SIGTERM)
    assert again.finish().status == 128 + signal.SIGTERM
    assert again.summary()["restarts"] == 1
