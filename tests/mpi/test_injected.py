"""Slowness on purpose in real runs: of one process, of Horovod's, of an asynchronous world.

What is held against the clock here are lower bounds that no machine can fall below: a step that
is to take 80 ms never takes less.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mpi_dcasgd
from mpi_dcasgd.drivers.simulation.cluster import WorkerClock, parse_cluster

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(180)]

INJECT = {"delays": {"model": "gamma", "mean_s": 0.02}, "slow": {1: 4}}
JOB = "jobs/digits.yaml"
SHORT = ("epochs=1", "batch_size=64")


def told_of(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The summary of a run, and what its workers say of their time."""
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "completed"
    return summary, [event for event in events if event["event"] == "worker"]


@pytest.fixture
def train(shared_world: Callable[..., Any]) -> Callable[..., Any]:
    """``train(ranks, folder, *overrides)`` in the shared world."""

    def run(ranks: int, folder: Path, *overrides: str) -> Any:
        runs = [(str(folder), [*SHORT, *overrides])]
        shared_world("world_calls:train", JOB, runs, ranks=ranks)
        return told_of(folder)

    return run


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
    train: Callable[..., Any], tmp_path: Path
) -> None:
    plain, _ = train(2, tmp_path / "plain", "algorithm=ssgd")
    summary, workers = train(2, tmp_path / "slowed", "algorithm=ssgd", slowed())
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
    train: Callable[..., Any], tmp_path: Path
) -> None:
    _, workers = train(3, tmp_path / "run", "algorithm=asgd", slowed())
    for told, seconds in zip(workers, least_s(workers), strict=True):
        assert told["compute_s"] >= seconds
    assert workers[0]["updates"] > workers[1]["updates"]


def test_one_process_is_slowed_as_worker_0(tmp_path: Path) -> None:
    def train(folder: Path, *words: str) -> Any:
        mpi_dcasgd.train(JOB, run_dir=folder, words=[*SHORT, "algorithm=sgd", *words])
        return told_of(folder)

    plain, _ = train(tmp_path / "plain")
    delays = json.dumps({"delays": INJECT["delays"]})  # it has no worker 1 to be slowed more
    summary, workers = train(tmp_path / "slowed", f"inject={delays}")
    assert summary["weights_sha256"] == plain["weights_sha256"]
    [told] = workers
    clock = WorkerClock(parse_cluster("", INJECT), 2, 0)
    assert told["compute_s"] >= sum(clock.finish(0, 0.0) for _ in range(told["updates"]))
