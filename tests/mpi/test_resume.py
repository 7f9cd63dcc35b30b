"""Real worlds that are stopped, or killed, and go on with as many ranks or with others."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mpi_dcasgd
from mpi_dcasgd.record.checkpoints import checkpoints_in
from mpi_dcasgd.record.metrics import read_metrics
from mpi_dcasgd.record.trace import read_trace
from mpi_dcasgd.runs.replay import replay
from mpi_dcasgd.server.records import Action
from mpi_dcasgd.tools.launch import world as launch

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(180)]

JOB = "jobs/digits.yaml"
EPOCHS = 30
TICKETS = EPOCHS * 90
STOPPED = 128 + signal.SIGUSR1


def words(ranks: int, folder: Path, *overrides: str) -> tuple[str, ...]:
    """What `mpi-dcasgd run` would start, without that process above it."""
    job = [f"epochs={EPOCHS}", *overrides, "--run-dir", str(folder)]
    command = launch.plan(ranks, launch.rank_program(JOB, job))
    return "env", *(f"{name}={value}" for name, value in command.env.items()), *command.argv


def stop(processes: Any, argv: tuple[str, ...]) -> None:
    """Start a world of its own and have mpirun stop it after its first evaluation."""
    process = processes.start(argv)
    processes.wait_for(process, lines=3)
    process.send_signal(signal.SIGUSR1)
    finished = processes.finish(process)
    assert finished.status == STOPPED, finished


class Shared:
    """Trains in the shared world."""

    def __init__(self, world: Callable[..., Any]) -> None:
        self._world = world

    def stop(self, ranks: int, folder: Path, *overrides: str) -> None:
        """Have a signal stop a run after its first evaluation."""
        job = [f"epochs={EPOCHS}", *overrides]
        first, *_ = self._world("world_calls:interrupt", JOB, folder, job, ranks=ranks)
        assert first.value == ["interrupted", signal.SIGUSR1]

    def train(self, ranks: int, folder: Path, *overrides: str) -> None:
        """Train to the end, from a checkpoint if there is one."""
        runs = [(str(folder), [f"epochs={EPOCHS}", *overrides])]
        answers = self._world("world_calls:train", JOB, runs, ranks=ranks)
        assert [answer.value for answer in answers] == ranks * [["completed"]]


@pytest.fixture
def shared(shared_world: Callable[..., Any]) -> Shared:
    return Shared(shared_world)


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def taken(folder: Path) -> Counter[int]:
    """How often each ticket's gradient entered the weights."""
    records = read_trace(folder / "trace.bin", strict=True).records()
    return Counter(r.ticket for r in records if r.action in (Action.APPLIED, Action.HELD))


def check_whole(folder: Path, restarts: int, epochs: int = EPOCHS) -> None:
    found = summary(folder)
    assert (found["status"], found["restarts"]) == ("completed", restarts)
    assert found["samples"] == epochs * 1437


def test_one_worker_that_was_stopped_twice_comes_to_the_sequential_weights(
    processes: Any, tmp_path: Path
) -> None:
    run, alone = tmp_path / "run", tmp_path / "alone"
    argv = words(2, run, "algorithm=asgd")
    stop(processes, argv)
    stop(processes, argv)
    finished = processes.run(argv)
    assert finished.status == 0, finished
    check_whole(run, restarts=2)
    mpi_dcasgd.train(JOB, run_dir=alone, algorithm="sgd", epochs=EPOCHS)
    assert summary(run)["weights_sha256"] == summary(alone)["weights_sha256"]


@pytest.mark.parametrize("algorithm", ["rennala", "dana"])
def test_other_workers_go_on_and_the_whole_is_replayed(
    shared: Shared, tmp_path: Path, algorithm: str
) -> None:
    """One holds gradients, the other has a momentum for each worker and their sum."""
    run = tmp_path / "run"
    job = f"algorithm={algorithm}"
    shared.stop(3, run, job)
    shared.stop(5, run, job)
    shared.train(4, run, job)
    check_whole(run, restarts=2)
    assert taken(run) == Counter(range(TICKETS)), "every ticket once"
    trace = read_trace(run / "trace.bin")
    assert [restart.num_workers for restart in trace.restarts] == [4, 3]
    found = replay(run)
    assert found.identical, found


def test_a_world_that_was_killed_goes_on_from_its_last_checkpoint(
    processes: Any, shared: Shared, tmp_path: Path
) -> None:
    run, changes = tmp_path / "run", "checkpoint={every: 1, every_s: null}"
    process = processes.start(words(4, run, changes))
    processes.wait_until(process, lambda: bool(checkpoints_in(run / "checkpoints")))
    processes.kill()
    processes.finish(process)
    assert checkpoints_in(run / "checkpoints")
    assert not (run / "summary.json").exists()
    shared.train(4, run, changes)
    check_whole(run, restarts=1)
    assert taken(run) == Counter(range(TICKETS))
    workers = [e for e in read_metrics(run / "metrics.jsonl") if e["event"] == "worker"]
    assert len(workers) == 3
    assert sum(worker["updates"] for worker in workers) == TICKETS, "those of the killed start, too"


@pytest.mark.horovod
def test_a_synchronous_group_goes_on_bit_for_bit_in_processes_of_its_own(
    processes: Any, shared: Shared, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    changes = ("algorithm=ssgd", "epochs=20")
    shared.stop(2, cut, *changes)
    finished = processes.run(words(2, cut, *changes))
    assert finished.status == 0, finished
    shared.train(2, whole, *changes)
    check_whole(cut, restarts=1, epochs=20)
    assert summary(cut)["weights_sha256"] == summary(whole)["weights_sha256"]
    assert summary(cut)["updates"] == summary(whole)["updates"]


@pytest.mark.horovod
def test_a_synchronous_group_of_another_size_goes_on_with_the_rest(
    shared: Shared, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    changes = ("algorithm=ssgd", "epochs=20")
    shared.stop(3, run, *changes)
    shared.train(2, run, *changes)
    check_whole(run, restarts=1, epochs=20)
    assert summary(run)["test_error"] <= 0.04
