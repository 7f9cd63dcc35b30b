"""Slowness on purpose in real runs: of one process, of Horovod's, of an asynchronous world.

What is held against the clock here are lower bounds that no machine can fall below: a step that
is to take 80 ms never takes less.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.drivers.simulation.cluster import WorkerClock, parse_cluster

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(180)]

INJECT = {"delays": {"model": "gamma", "mean_s": 0.02}, "slow": {1: 4}}
SHORT = ("epochs=1", "batch_size=64")


def train(
    start: Callable[..., Any], folder: Path, *overrides: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The summary of a run, and what its workers say of their time."""
    words = ["-m", "mpi_dcasgd", "train", "jobs/digits.yaml", *SHORT, *overrides]
    finished = start(*words, "--run-dir", str(folder))
    assert finished.status == 0, finished
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    return summary, [event for event in events if event["event"] == "worker"]


def least_s(workers: list[dict[str, Any]]) -> list[float]:
    """The seconds that the steps of each worker were to take, at least."""
    clock = WorkerClock(parse_cluster("", INJECT), len(workers), 0)
    return [
        sum(clock.finish(worker, 0.0) for _ in range(told["updates"]))
        for worker, told in enumerate(workers)
    ]


def slowed() -> str:
    return f"inject={json.dumps(INJECT)}"


@pytest.mark.horovod
def test_horovod_waits_for_the_slowed_worker_and_gives_the_same_weights(
    mpirun: Callable[..., Any], tmp_path: Path
) -> None:
    def start(*words: str) -> Any:
        return mpirun(2, *words)

    plain, _ = train(start, tmp_path / "plain", "algorithm=ssgd")
    summary, workers = train(start, tmp_path / "slowed", "algorithm=ssgd", slowed())
    assert summary["driver"] == "horovod"
    assert summary["weights_sha256"] == plain["weights_sha256"]
    least = least_s(workers)
    assert least[1] > 2 * least[0]
    for told, seconds in zip(workers, least, strict=True):
        assert told["compute_s"] >= seconds
    # A step is as long as the slowest worker's, and the other one spends what is left in waiting.
    assert summary["wall_s"] >= least[1]
    assert workers[0]["comm_s"] > workers[1]["comm_s"]


def test_an_asynchronous_worker_is_slowed_and_the_others_take_its_work(
    mpirun: Callable[..., Any], tmp_path: Path
) -> None:
    def start(*words: str) -> Any:
        return mpirun(3, *words)

    _, workers = train(start, tmp_path / "run", "algorithm=asgd", slowed())
    for told, seconds in zip(workers, least_s(workers), strict=True):
        assert told["compute_s"] >= seconds
    assert workers[0]["updates"] > workers[1]["updates"]


def test_one_process_is_slowed_as_worker_0(processes: Any, tmp_path: Path) -> None:
    def start(*words: str) -> Any:
        return processes.run([sys.executable, *words])

    plain, _ = train(start, tmp_path / "plain", "algorithm=sgd")
    summary, workers = train(start, tmp_path / "slowed", "algorithm=sgd", slowed())
    assert summary["weights_sha256"] == plain["weights_sha256"]
    [told] = workers
    clock = WorkerClock(parse_cluster("", INJECT), 2, 0)
    assert told["compute_s"] >= sum(clock.finish(0, 0.0) for _ in range(told["updates"]))
