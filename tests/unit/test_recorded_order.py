"""Replaying a run from its record, with the toy world standing in for the cluster."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from toy import World

from mpi_dcasgd.drivers.simulation.recorded_order import OrderReplay, RecordedLedger, replay
from mpi_dcasgd.server.records import UpdateRecord, fingerprint

OrderOf = Callable[[list[int]], int]


def random_order(seed: int) -> OrderOf:
    rng = random.Random(seed)
    return lambda working: rng.choices(working, [1 + 3 * w for w in working])[0]


def recorded(world: World, order: OrderOf | None = None) -> list[UpdateRecord]:
    world.run(order or random_order(4))
    return [answer.record for answer in world.answers]


def replayed(records: list[UpdateRecord], *args: Any, finished: bool = True, **kwargs: Any) -> Any:
    world = World(*args, **kwargs)
    world.server.ledger = RecordedLedger(records, len(world.learners), finished=finished)
    marks = [fingerprint(r.loss, r.grad_norm) for r in records]
    return world, replay(world.server, world.learner_of_its_own, records, marks)


RULES: list[tuple[str, dict[str, Any]]] = [
    ("asgd", {}),
    ("dcasgd-a", {"momentum": {"name": "heavy-ball", "momentum": 0.5}}),
]


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize(("algorithm", "rule"), RULES)
def test_a_replay_gives_the_same_weights_bit_for_bit(
    algorithm: str, rule: dict[str, Any], ahead: int
) -> None:
    original = World(4, algorithm, rule, ahead=ahead, batchnorm=True, dropout=0.2)
    records = recorded(original)
    world, difference = replayed(records, 4, algorithm, rule, batchnorm=True, dropout=0.2)
    assert difference is None
    assert torch.equal(world.server.weights, original.server.weights)
    assert world.server.finished


def test_a_run_that_lost_a_worker_can_be_replayed() -> None:
    original = World(3, "dcasgd-a")
    original.join()
    rng = random.Random(1)
    while not original.server.finished:
        if original.server.version == 9 and original.server.slots[1].status != "lost":
            original.receive(original.server.lose(1))
        original.step(rng.choice(original.working()))
    records = [answer.record for answer in original.answers]
    world, difference = replayed(records, 3, "dcasgd-a")
    assert difference is None
    assert torch.equal(world.server.weights, original.server.weights)


def test_a_run_that_was_cut_off_can_be_replayed_up_to_there() -> None:
    original = World(3, "dcasgd-a")
    original.join()
    for worker in (2, 0, 1, 1, 2, 0, 2):
        original.step(worker)
    records = [answer.record for answer in original.answers]
    world, difference = replayed(records, 3, "dcasgd-a", finished=False)
    assert difference is None
    assert torch.equal(world.server.weights, original.server.weights)


def stopped(world: World, after: int, order: OrderOf) -> list[UpdateRecord]:
    """Stop a run after so many pushes, as a signal does: what is being computed still counts."""
    world.join()
    while len(world.answers) < after and not world.server.finished:
        world.step(order(world.working()))
    world.receive(world.server.halt())
    while working := world.working():
        world.step(order(working))
    return [answer.record for answer in world.answers]


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("algorithm", ["rennala", "ringmaster", "ssp", "dana", "dcasgd-a"])
def test_a_run_that_was_stopped_can_be_replayed(algorithm: str, ahead: int) -> None:
    """Wherever that is: with gradients held, workers waiting, or the last tickets out."""
    rule = {"admission": {"gradients": 4}} if algorithm == "rennala" else {}
    held, complete = set(), set()
    for after in (3, 9, 14, 19, 99):
        original = World(3, algorithm, rule, ahead=ahead)
        records = stopped(original, after, random_order(after))
        complete.add(original.server.complete)
        held.add(original.server._model.num_held)
        world, difference = replayed(records, 3, algorithm, rule, finished=original.server.complete)
        assert difference is None, after
        assert torch.equal(world.server.weights, original.server.weights), after
        assert world.server.version == original.server.version
        assert world.server._model.num_held == original.server._model.num_held
    assert complete == {False, True}
    assert any(held) == (algorithm == "rennala")


def test_the_first_gradient_that_differs_is_named() -> None:
    records = recorded(World(3, "asgd"))
    records[7] = records[7]._replace(loss=records[7].loss * (1 + 1e-15) + 1e-15)
    _, difference = replayed(records, 3, "asgd")
    assert difference is not None
    assert difference.number == 7
    assert "fingerprint" in str(difference)


def test_another_rule_differs_as_soon_as_a_gradient_was_stale() -> None:
    records = recorded(World(3, "asgd"))
    stale = next(n for n, r in enumerate(records) if r.staleness)
    _, difference = replayed(records, 3, "dcasgd-c", {"compensation": {"dc_lambda": 9.0}})
    assert difference is not None
    # The stale gradient itself is the same; what came of it shows in the next from there.
    assert difference.number > stale


@pytest.mark.parametrize("algorithm", ["asgd", "dcasgd-c"])
def test_the_order_alone_gives_the_same_run_and_serves_another_rule(algorithm: str) -> None:
    original = World(4, "asgd")
    records = recorded(original)
    world = World(4, algorithm)
    told: list[UpdateRecord] = []
    order = [r.worker for r in records]
    run = OrderReplay(world.server, world.learner_of_its_own, order)
    run.told = told.append
    run.run()
    assert (run.passed, run.done) == (0, True)
    assert world.server.complete
    assert [(r.worker, r.ticket, r.staleness) for r in told] == [
        (r.worker, r.ticket, r.staleness) for r in records
    ]
    assert torch.equal(world.server.weights, original.server.weights) == (algorithm == "asgd")


def test_the_task_must_not_compute_in_a_workers_snapshot() -> None:
    world = World(2)
    with pytest.raises(ValueError, match="snapshot"):
        OrderReplay(world.server, world.learners[0], [0, 1])
