"""Ranks and workers: who serves, who trains, and how many there have to be."""

from __future__ import annotations

import ast
import doctest
import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest

import mpi_dcasgd
from mpi_dcasgd.config.check import try_job
from mpi_dcasgd.config.load import job_as_yaml, load_job
from mpi_dcasgd.drivers import topology
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
    assert list(world.server_ranks) == [SERVER]
    assert list(world.worker_ranks) == [1, 2, 3]
    assert [world.worker_of(world.rank_of(worker)) for worker in range(3)] == [0, 1, 2]


def test_several_servers_come_before_the_workers() -> None:
    world = Topology("asynchronous", 2, servers=3)
    assert world.world_size == 5
    assert [world.role(rank) for rank in range(5)] == 3 * ["server"] + 2 * ["worker"]
    assert list(world.follower_ranks) == [1, 2]
    assert [world.worker_of(rank) for rank in range(5)] == [None, None, None, 0, 1]
    assert Topology.of_world("asynchronous", 5, algorithm="x", servers=3) == world
    with pytest.raises(LaunchError, match=r"it needs 3 servers .* so start 4 or more ranks"):
        Topology.of_world("asynchronous", 3, algorithm="x", servers=3)
    assert Topology("synchronous", 2, servers=3).world_size == 2


@pytest.mark.parametrize("mode", ["sequential", "synchronous"])
def test_every_rank_of_another_world_trains(mode: Mode) -> None:
    world = Topology(mode, 1 if mode == "sequential" else 3)
    assert world.world_size == world.num_workers
    assert not world.server_ranks
    assert {world.role(rank) for rank in world.worker_ranks} == {"trainer"}
    assert [world.worker_of(rank) for rank in world.worker_ranks] == list(world.worker_ranks)


@pytest.mark.parametrize("mode", ["sequential", "synchronous", "asynchronous"])
def test_a_world_and_its_size_say_the_same(mode: Mode) -> None:
    world = Topology(mode, 1)
    assert Topology.of_world(mode, world.world_size, algorithm="x") == world
    assert Topology.of_workers(mode, 1, algorithm="x") == world


@pytest.mark.parametrize(
    ("mode", "size", "told"),
    [
        ("sequential", 2, "-n 2: algorithm x is one process, but got 2 ranks"),
        ("asynchronous", 1, "-n 1: algorithm x got 1 rank; it needs a server and at least one"),
        ("synchronous", 0, "-n 0: algorithm x got 0 ranks; it needs at least one rank"),
    ],
)
def test_a_number_of_ranks_that_cannot_be_is_refused(mode: Mode, size: int, told: str) -> None:
    with pytest.raises(LaunchError) as caught:
        Topology.of_world(mode, size, algorithm="x", origin=f"-n {size}")
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("algorithm", "workers", "told"),
    [
        ("sgd", 2, "algorithm sgd is one process, but got 2 workers"),
        ("ssgd", 0, "algorithm ssgd got 0 workers; it needs at least one rank"),
        ("asgd", 0, "algorithm asgd got 0 workers; it needs a server and at least one worker"),
    ],
)
def test_a_number_of_workers_that_cannot_be_is_refused(
    algorithm: str, workers: int, told: str
) -> None:
    job = load_job(REPOSITORY / "jobs/digits.yaml", [f"algorithm={algorithm}"])
    with pytest.raises(LaunchError) as caught:
        job.world(workers)
    assert str(caught.value).startswith(told)
    with pytest.raises(LaunchError, match=f"{workers} workers"):
        Topology(job.mode, workers)


def test_the_example_holds() -> None:
    assert doctest.testmod(topology) == (0, 4)


def test_a_job_knows_its_mode_its_rule_and_its_world() -> None:
    job = load_job(REPOSITORY / "jobs/digits.yaml", ["algorithm=dcasgd-a"])
    assert job.mode == ALGORITHMS["dcasgd-a"].mode == "asynchronous"
    assert isinstance(job.rule, Rule)
    assert job.world(4).world_size == 5
    for copy in (replace(job, name="other", seed=3), pickle.loads(pickle.dumps(job))):
        assert (copy.rule, copy.mode) == (job.rule, job.mode)


OWN_PART = """
from pydantic.dataclasses import dataclass

from mpi_dcasgd.rules.momentum import NoMomentum

@dataclass(frozen=True, kw_only=True)
class Halved(NoMomentum):
    by: float = 0.5
"""


def test_a_part_of_ones_own_travels_with_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "parts_of_mine.py").write_text(OWN_PART)
    monkeypatch.syspath_prepend(tmp_path)
    written = {"name": "parts_of_mine:Halved", "by": 0.25}
    job = load_job(REPOSITORY / "jobs/digits.yaml", [f"rule.momentum={json.dumps(written)}"])
    assert type(job.rule.momentum).__name__ == "Halved"
    assert job_as_yaml(job)["rule"]["momentum"] == written
    assert replace(job, seed=1).rule == pickle.loads(pickle.dumps(job)).rule == job.rule
    again, problems = try_job(job_as_yaml(job), name="")
    assert (again, problems) == (job, [])
    other = load_job(REPOSITORY / "jobs/digits.yaml", ["rule.momentum=parts_of_mine:Halved"])
    assert other != job


# Where a fact is worked out; everybody else asks a job, or the topology.
_OWNERS = {"rules/algorithms.py", "config/check.py", "drivers/topology.py"}

# One more or less than a number of workers or ranks, where it is not the server that is meant.
_OTHER_MEANINGS = {
    # W equal workers settle at staleness W - 1.
    ("step_size.py", "facts.num_workers - 1"),
    ("stability.py", "one.workers - 1"),
    ("stable_rates.py", "workers - 1"),
    ("stabilitys_edge.py", "workers - 1"),
    # Vectors: the weights, and one a worker.
    ("stable_rates.py", "1 + workers"),
    # The last of them.
    ("cluster.py", "num_workers - 1"),
    ("part_laws.py", "num_workers - 1"),
    ("formula_law.py", "num_workers - 1"),
    # Rows of a picture: the server's, and one a worker.
    ("timeline_json.py", "timeline.num_workers + 1"),
    ("timeline_json.py", "one.worker + 1"),
    ("timeline_picture.py", "timeline.num_workers + 1"),
    ("timeline_picture.py", "one.worker + 1"),
    # Steps of the others, while one is served.
    ("dry_run.py", "plan.num_workers - 1"),
    # The other one of two.
    ("pingpong.py", "1 - comm.rank"),
    # Messages of a ring.
    ("network.py", "ranks - 1"),
    # The root below its number counted from 1.
    ("square_root.py", "worker + 1"),
}
_COUNTS = re.compile(r"(^|[._])(ranks?|workers?|world_size|comm\.size|w)$")


def _old_look_ups(source: str) -> list[tuple[int, str]]:
    """Places that look up an algorithm's mode, resolve a job's rule, or turn workers into ranks."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            old = text.startswith("ALGORITHMS[") and text.endswith(".mode")
        elif isinstance(node, ast.Call):
            text = ast.unparse(node)
            old = text.partition("(")[0].endswith("resolve_rule") and bool(
                re.search(r"\b(job|algorithm, .*rule)\b", text)
            )
        elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
            text = ast.unparse(node)
            old = _by_one(node.left, node.right) or _by_one(node.right, node.left)
        else:
            continue
        if old:
            found.append((node.lineno, text))
    return found


def _by_one(number: ast.expr, one: ast.expr) -> bool:
    """Whether a number of ranks or workers is changed by one, or by whether there is a server."""
    return _COUNTS.search(ast.unparse(number)) is not None and (
        (isinstance(one, ast.Constant) and one.value == 1)
        or isinstance(one, ast.Compare)
        or (isinstance(one, ast.Call) and ast.unparse(one.func) in ("int", "bool"))
    )


@pytest.mark.parametrize(
    "source",
    [
        "ALGORITHMS[job.algorithm].mode == 'x'",
        "resolve_rule(job.algorithm, job.rule)",
        "algorithms.resolve_rule(self.job.algorithm, self.job.rule)",
        "comm.Send(x, dest=worker + 1)",
        "plan(1 + workers, program)",
        "n = self.comm.size - 1",
        "last = plan.world_size - 1",
        "ranks = self.num_workers + (mode == 'asynchronous')",
    ],
)
def test_an_old_look_up_is_seen(source: str) -> None:
    assert _old_look_ups(source)


@pytest.mark.parametrize("source", ["job.mode", "epoch + 1", "len(ranks) - 1", "workers + 2"])
def test_what_is_no_look_up_is_left_alone(source: str) -> None:
    assert not _old_look_ups(source)


def test_mode_rule_and_ranks_are_worked_out_in_one_place() -> None:
    files = {file.relative_to(PACKAGE).as_posix(): file for file in PACKAGE.rglob("*.py")}
    assert files.keys() > _OWNERS
    found = [
        f"{name}, line {line}: {text}"
        for name, file in sorted(files.items())
        if name not in _OWNERS
        for line, text in _old_look_ups(file.read_text(encoding="utf-8"))
        if (file.name, text) not in _OTHER_MEANINGS
    ]
    assert not found, "\n".join(found)
