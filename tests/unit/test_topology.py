"""Ranks and workers: who serves, who trains, and how many there have to be."""

from __future__ import annotations

import ast
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

import mpi_dcasgd
from mpi_dcasgd.config.load import load_job
from mpi_dcasgd.drivers.topology import SERVER, Topology
from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.rules.algorithms import ALGORITHMS
from mpi_dcasgd.rules.compatibility import Mode
from mpi_dcasgd.rules.rule import Rule

PACKAGE = Path(mpi_dcasgd.__file__).parent
REPOSITORY = PACKAGE.parent


def test_the_first_rank_of_an_asynchronous_world_serves() -> None:
    world = Topology("asynchronous", 3)
    assert world.world_size == 4
    assert [world.role(rank) for rank in range(4)] == ["server", "worker", "worker", "worker"]
    assert world.worker_of(SERVER) is None
    assert list(world.worker_ranks) == [1, 2, 3]
    assert [world.worker_of(world.rank_of(worker)) for worker in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("mode", ["sequential", "synchronous"])
def test_every_rank_of_another_world_trains(mode: Mode) -> None:
    world = Topology(mode, 1 if mode == "sequential" else 3)
    assert world.world_size == world.num_workers
    assert {world.role(rank) for rank in world.worker_ranks} == {"trainer"}
    assert [world.worker_of(rank) for rank in world.worker_ranks] == list(world.worker_ranks)


@pytest.mark.parametrize("mode", ["sequential", "synchronous", "asynchronous"])
def test_a_world_and_its_size_say_the_same(mode: Mode) -> None:
    world = Topology(mode, 1)
    assert Topology.of_world(mode, world.world_size, algorithm="x") == world


@pytest.mark.parametrize(
    ("mode", "size", "told"),
    [
        ("sequential", 2, "-n 2: algorithm x is one process, but got 2 ranks"),
        ("asynchronous", 1, "-n 1: algorithm x got 1 rank; it needs a server and at least one"),
        ("synchronous", 0, "-n 0: algorithm x got 0 ranks"),
    ],
)
def test_a_number_of_ranks_that_cannot_be_is_refused(mode: Mode, size: int, told: str) -> None:
    with pytest.raises(LaunchError) as caught:
        Topology.of_world(mode, size, algorithm="x", origin=f"-n {size}")
    assert str(caught.value).startswith(told)


def test_a_job_knows_its_mode_its_rule_and_its_world() -> None:
    job = load_job(REPOSITORY / "jobs/digits.yaml", ["algorithm=dcasgd-a"])
    assert job.mode == ALGORITHMS["dcasgd-a"].mode == "asynchronous"
    assert isinstance(job.rule, Rule)
    assert job.world(4).world_size == 5
    for copy in (replace(job, name="other", seed=3), pickle.loads(pickle.dumps(job))):
        assert (copy.rule, copy.mode) == (job.rule, job.mode)


# Where a fact is worked out; everybody else asks a job, or the topology.
_OWNERS = {"rules/algorithms.py", "config/check.py", "drivers/topology.py"}


def _old_look_ups(source: str) -> list[str]:
    """Places that look up an algorithm's mode, resolve a job's rule, or turn workers into ranks."""
    found = []
    for node in ast.walk(ast.parse(source)):
        text = ast.unparse(node) if isinstance(node, (ast.Attribute, ast.Call, ast.BinOp)) else ""
        mode = text.startswith("ALGORITHMS[") and text.endswith(".mode")
        rule = text.startswith("resolve_rule(") and "job" in text
        shift = text in {
            *(f"worker {sign} 1" for sign in "+-"),
            *(f"rank {sign} 1" for sign in "+-"),
            *(f"{name} - 1" for name in ("comm.size", "self.comm.size", "self._comm.size")),
            *(f"{name} + 1" for name in ("num_workers", "server.num_workers", "self.num_workers")),
            *("world_size - 1", "w + 1"),
        }
        if mode or rule or shift:
            found.append(f"line {node.lineno}: {text}")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "ALGORITHMS[job.algorithm].mode == 'x'",
        "resolve_rule(job.algorithm, job.rule)",
        "comm.Send(x, dest=worker + 1)",
        "n = self.comm.size - 1",
    ],
)
def test_an_old_look_up_is_seen(source: str) -> None:
    assert _old_look_ups(source)


def test_mode_rule_and_ranks_are_worked_out_in_one_place() -> None:
    files = {str(file.relative_to(PACKAGE)): file for file in PACKAGE.rglob("*.py")}
    assert files.keys() > _OWNERS
    found = [
        f"{name}, {line}"
        for name, file in sorted(files.items())
        if name not in _OWNERS
        for line in _old_look_ups(file.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)
