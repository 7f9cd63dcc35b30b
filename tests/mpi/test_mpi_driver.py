"""The MPI driver under a real mpirun, with a toy model (tests/mpi/toy_ranks.py)."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import World

from mpi_dcasgd.drivers.conductor import weights_sha256
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.server.precision import WireSettings

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(120)]

RANKS = Path(__file__).with_name("toy_ranks.py")
RUN = "toy_ranks:run"
TESTS = RANKS.parent.parent


@pytest.fixture
def toy(mpirun: Callable[..., Any]) -> Callable[..., Any]:
    def run(size: int, *, fault_tolerant: bool = False, **options: Any) -> Any:
        return mpirun(
            size,
            str(RANKS),
            json.dumps(options),
            env={"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"},
            fault_tolerant=fault_tolerant,
        )

    return run


@pytest.fixture
def told(shared_world: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """What rank 0 says about a run that went well."""

    def run(size: int, **options: Any) -> dict[str, Any]:
        happened, *others = (each.value for each in shared_world(RUN, options, ranks=size))
        assert others == (size - 1) * [None]
        result: dict[str, Any] = happened
        return result

    return run


TRANSPORTS = [
    {"transport": "shared"},
    {"transport": "messages"},
    {"transport": "messages", "chunk_mb": 0.0002},  # of 48 elements
]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("algorithm", ["asgd", "dcasgd-c", "dcasgd-a"])
def test_one_worker_is_the_sequential_run_bit_for_bit(
    told: Callable[..., dict[str, Any]], algorithm: str, transport: dict[str, Any]
) -> None:
    torch.set_num_threads(1)
    world = World(1, algorithm, dropout=0.2, batchnorm=True)
    weights = world.run()
    model = {"dropout": 0.2, "batchnorm": True}
    run = told(2, algorithm=algorithm, model=model, **transport)
    assert run["sha"] == weights_sha256(weights, world.server.layout)
    assert set(run["staleness"]) == {0}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("ahead", [0, 2])
def test_uneven_workers_apply_every_ticket_once(
    told: Callable[..., dict[str, Any]], ahead: int, transport: dict[str, Any]
) -> None:
    run = told(4, algorithm="dcasgd-a", slow=2, ahead=ahead, epochs=6, **transport)
    assert run["complete"]
    assert sorted(run["tickets"]) == list(range(42))
    shares = Counter(run["workers"])
    assert shares[1] < shares[0]
    assert shares[1] < shares[2]
    assert run["counted"] == [shares[worker] for worker in range(3)]


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({"transport": "shared"}, [True, True, True]),
        ({"transport": "messages"}, [False, False, False]),
        ({"apart": 2}, [True, False, True]),
        ({"transport": "messages", "chunk_mb": 0.0002}, [False, False, False]),
        ({"apart": 2, "chunk_mb": 0.0002}, [True, False, True]),
        ({"apart": 1, "wire": {"push": "fp16", "reply": "bf16"}}, [False, True, True]),
        ({"transport": "messages", "wire": {"push": "bf16"}}, [False, False, False]),
    ],
)
def test_what_was_recorded_can_be_computed_again_in_one_process(
    told: Callable[..., dict[str, Any]], options: dict[str, Any], shares: list[bool]
) -> None:
    # The same server, the same tickets, the order that MPI happened to deliver: the same weights.
    torch.set_num_threads(1)
    run = told(4, algorithm="dcasgd-a", model={"batchnorm": True}, epochs=4, **options)
    assert run["shares"] == shares
    wire = WireSettings(**options.get("wire", {}))
    world = World(3, "dcasgd-a", plan=TicketPlan(50, 8, 3, 4), wire=wire, batchnorm=True)
    world.join()
    # Who came first for the first tickets is told by the tickets themselves.
    for worker, ticket in zip(run["workers"], run["tickets"], strict=True):
        assert world.queues[worker][0] == ticket
        world.step(worker)
    assert [a.record.staleness for a in world.answers] == run["staleness"]
    assert weights_sha256(world.server.weights, world.server.layout) == run["sha"]


def test_one_ranks_exception_ends_the_job_with_rank_and_reason(toy: Callable[..., Any]) -> None:
    finished = toy(4, algorithm="asgd", fail=2)
    assert finished.status == 1, finished
    assert "rank 2: the cat sat on the keyboard" in finished.stderr


@pytest.mark.parametrize("ahead", [0, 2])
def test_a_worker_that_tells_of_its_exception_costs_its_unfinished_tickets_only(
    told: Callable[..., dict[str, Any]], ahead: int
) -> None:
    # So many that the others cannot finish before the worker has had its third.
    run = told(4, algorithm="dcasgd-a", fail=2, tell=True, ahead=ahead, epochs=40)
    assert run["complete"]
    assert sorted(run["tickets"]) == list(range(280))
    assert Counter(run["workers"])[1] == 2
    (message,) = run["messages"]
    assert message.startswith(
        "worker 1 (rank 2) failed: the cat sat on the keyboard; its tickets ["
    )


def test_a_ticket_that_ends_two_workers_ends_the_run(told: Callable[..., dict[str, Any]]) -> None:
    run = told(3, algorithm="asgd", poison=9)
    assert run["failure"].startswith("WorkersFailedError: ticket 9 failed on worker ")
    assert run["failure"].endswith(": the cat sat on the keyboard")
    assert 9 not in run["tickets"]
    assert len(run["messages"]) == 2


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "pushed 1000008 samples of ticket 1, which has 8"),
        ({"words": 40, "transport": "messages"}, "sent 160 bytes, but was asked for "),
    ],
)
def test_a_push_that_is_not_what_was_asked_for_names_the_worker(
    toy: Callable[..., Any], options: dict[str, int], told: str
) -> None:
    finished = toy(3, algorithm="asgd", odd=2, **options)
    assert finished.status == 1, finished
    assert "rank 0: worker 1 (rank 2)" in finished.stderr
    assert told in finished.stderr


@pytest.mark.ulfm
def test_a_killed_worker_costs_its_unfinished_tickets_only(toy: Callable[..., Any]) -> None:
    finished = toy(4, algorithm="dcasgd-a", die=2, fault_tolerant=True, epochs=6)
    assert finished.status == 0, finished
    run = json.loads(finished.stdout)
    assert run["complete"]
    assert sorted(run["tickets"]) == list(range(42))
    assert Counter(run["workers"])[1] == 2, "it was killed computing its third ticket"
    (message,) = run["messages"]
    assert message.startswith("worker 1 (rank 2) died; its tickets [")
    assert "2 of 3 workers are left" in message


def test_a_push_that_stalls_half_way_is_put_back_and_applied_when_all_of_it_is_there(
    told: Callable[..., dict[str, Any]],
) -> None:
    torch.set_num_threads(1)
    run = told(2, algorithm="dcasgd-a", chunk_mb=0.0002, transport="messages", withhold=1)
    assert run["put_backs"] == 1
    world = World(1, "dcasgd-a")
    weights = world.run()
    assert run["sha"] == weights_sha256(weights, world.server.layout)
    assert run["messages"] == []


@pytest.mark.ulfm
def test_a_worker_killed_within_a_push_has_pushed_nothing(toy: Callable[..., Any]) -> None:
    options = {"algorithm": "dcasgd-a", "chunk_mb": 0.0002, "transport": "messages"}
    finished = toy(3, **options, die_within=2, fault_tolerant=True, epochs=4)
    assert finished.status == 0, finished
    run = json.loads(finished.stdout)
    assert run["put_backs"] == 1
    assert Counter(run["workers"])[1] == 2
    assert sorted(run["tickets"]) == list(range(28))
    assert run["messages"][0].startswith("worker 1 (rank 2) died; its tickets [")
    torch.set_num_threads(1)
    world = World(2, "dcasgd-a", plan=TicketPlan(50, 8, 3, 4))
    world.join()
    order = list(zip(run["workers"], run["tickets"], strict=True))
    for count, (worker, ticket) in enumerate(order):
        # The dead one's ticket is granted, and computed, next.
        if order[count + 1 : count + 2] == [(0, world.queues[1][0])]:
            world.receive(world.server.lose(1))
        assert world.queues[worker][0] == ticket, count
        world.step(worker)
    assert weights_sha256(world.server.weights, world.server.layout) == run["sha"]


@pytest.mark.ulfm
def test_when_the_last_worker_dies_the_job_says_so(toy: Callable[..., Any]) -> None:
    finished = toy(2, algorithm="asgd", die=1, fault_tolerant=True)
    assert finished.status == 1, finished
    assert "no worker is left" in finished.stderr
