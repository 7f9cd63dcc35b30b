"""A server goes on from its saved state bit for bit, and refuses another's."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import World

from mpi_dcasgd.errors import ProtocolError
from mpi_dcasgd.learning.groups import Grouping, ParameterGroup
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.rules.admission import Admission, Verdict
from mpi_dcasgd.rules.algorithms import ALGORITHMS
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.server.push import Push
from mpi_dcasgd.server.records import Action

GOLDEN = Path(__file__).parents[1] / "golden" / "states"


class Pairs(Admission):
    """Steps with two gradients at once, and drops what is very stale."""

    def verdict(self, facts: Facts) -> Verdict:
        return "drop" if facts.staleness > 4 else "hold"

    def collect(self, num_workers: int) -> int:
        return 2


def world_of(admission: Admission | None = None, **settings: Any) -> World:
    rule = {"momentum": {"name": "heavy-ball", "momentum": 0.5}}
    world = World(3, "dcasgd-a", rule, ahead=1, batchnorm=True, **settings)
    if admission:
        object.__setattr__(world.server.rule, "admission", admission)
    return world


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def finish(world: World, rng: random.Random) -> None:
    while not world.server.finished:
        world.step(rng.choice(world.working()))


@pytest.mark.parametrize("admission", [None, Pairs()], ids=["all", "pairs"])
@pytest.mark.parametrize("cut", [1, 8, 17])
def test_a_server_goes_on_from_its_state_bit_for_bit(cut: int, admission: Any) -> None:
    world, rng = world_of(admission), random.Random(cut)
    world.join()
    for step in range(cut):
        if step == 5:
            world.queues[2].clear()
            world.receive(world.server.lose(2))
        world.step(rng.choice(world.working()))
    state = through_a_file(world.server.state_dict())
    resumed = world_of(admission)
    resumed.server.load_state_dict(state)
    resumed.queues = [list(queue) for queue in world.queues]
    choices = rng.getstate()
    finish(world, rng)
    rng.setstate(choices)
    finish(resumed, rng)
    assert torch.equal(resumed.server.weights, world.server.weights)
    assert vars(resumed.server.tally) == vars(world.server.tally)
    assert resumed.answers == world.answers[cut:]


def test_who_waited_is_woken_after_a_state_was_loaded() -> None:
    world, resumed = (World(2, plan=TicketPlan(16, 8, 0, 1)) for _ in range(2))
    world.join()
    world.step(1)
    assert world.server.slots[1].status == "parked"
    resumed.server.load_state_dict(through_a_file(world.server.state_dict()))
    assert resumed.server.lose(0) == [1]


def test_a_state_is_a_copy() -> None:
    world = world_of()
    world.join()
    state = world.server.state_dict()
    world.step(0)
    assert torch.equal(state["weights"], world.initial)
    assert state["version"] == 0
    assert not state["tally"]["staleness"]


def test_a_state_consists_of_plain_values() -> None:
    groups = Grouping(groups=(ParameterGroup(match=("*.weight",), lr=0.5),))
    world = world_of(Pairs(), grouping=groups)
    world.join()
    for worker in (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1):
        world.step(worker)
    version, ticket = world.server.slots[2].version, world.queues[2][0]
    nan = float("nan")
    world.server.push(2, Push(version, ticket, world.plan.size(ticket), nan, nan, world.initial))
    tally = world.server.tally
    assert tally.applied
    assert tally.dropped
    assert tally.nonfinite
    for state in (world.server.state_dict(), world.server.lasting_state()):
        assert state["params"]
        plain(state)


def plain(value: Any) -> None:
    """Refuse what ``torch.load(..., weights_only=True)`` would not read in every version."""
    assert type(value) in (dict, list, str, int, float, bool, type(None), torch.Tensor), value
    for each in (*value, *value.values()) if isinstance(value, dict) else ():
        plain(each)
    for each in value if isinstance(value, list) else ():
        plain(each)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: World(3, "asgd", batchnorm=True), r"state vectors of the rule: \['comp"),
        (lambda: World(2, "dcasgd-a", batchnorm=True), "workers: 3, here 2"),
        (lambda: World(3, "dcasgd-a"), "elements: "),
        (
            lambda: world_of(plan=TicketPlan(50, 8, 3, 1)),
            "tickets: 21, here 7",
        ),
    ],
)
def test_another_jobs_state_is_refused(other: Any, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        other().server.load_state_dict(world_of().server.state_dict())


def test_another_number_of_tickets_is_for_a_server_that_has_a_ledger_of_its_own() -> None:
    world = world_of()
    world.join()
    world.step(0)
    state = world.server.lasting_state()
    other = world_of(plan=TicketPlan(50, 8, 3, 1))
    with pytest.raises(ProtocolError, match="tickets: 21, here 7"):
        other.server.take_over(state)
    other.server.take_over(state, tickets=False)
    assert torch.equal(other.server.weights, world.server.weights)
    assert (other.server.version, other.server.ledger.available) == (1, 7)


def test_another_layout_is_refused(tmp_path: Path) -> None:
    state = world_of().server.state_dict() | {"layout": 99}
    with pytest.raises(ProtocolError, match="layout: 99, here 1"):
        world_of().server.load_state_dict(state)


ASYNCHRONOUS = [name for name, found in ALGORITHMS.items() if found.mode == "asynchronous"]


def go_on(world: World, resumed: World) -> World:
    """Another world that goes on where this one is, with none of its workers."""
    resumed.server.take_over(through_a_file(world.server.lasting_state()))
    resumed.join()
    return resumed


@pytest.mark.parametrize("algorithm", ASYNCHRONOUS)
@pytest.mark.parametrize("ahead", [0, 2])
def test_one_worker_goes_on_bit_for_bit(algorithm: str, ahead: int) -> None:
    def falling(samples: int) -> float:
        return 0.1 / (1 + samples / 20)

    world = World(1, algorithm, ahead=ahead, batchnorm=True, schedule=falling)
    world.join()
    for _ in range(9):
        world.step(0)
    resumed = go_on(world, World(1, algorithm, ahead=ahead, batchnorm=True, schedule=falling))
    for each in (world, resumed):
        while not each.server.finished:
            each.step(0)
    assert torch.equal(resumed.server.weights, world.server.weights)
    assert [a.record for a in resumed.answers] == [a.record for a in world.answers[9:]]


@pytest.mark.parametrize("algorithm", ASYNCHRONOUS)
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_other_workers_apply_every_ticket_exactly_once(algorithm: str, workers: int) -> None:
    world, rng = World(3, algorithm, ahead=1), random.Random(workers)
    world.join()
    for _ in range(11):
        world.step(rng.choice(world.working()))
    resumed = go_on(world, World(workers, algorithm, ahead=1))
    finish(resumed, rng)
    records = [a.record for a in (*world.answers, *resumed.answers)]
    taken = [r.ticket for r in records if r.action in (Action.APPLIED, Action.HELD)]
    assert sorted(taken) == list(range(world.plan.num_tickets))
    assert resumed.server.samples == world.plan.total_samples
    assert sum(record.stepped for record in records) == resumed.server.version


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_sum_of_velocities_is_that_of_the_workers_that_are_left(workers: int) -> None:
    world = World(3, "dana")
    world.join()
    for worker in (0, 1, 2, 0):
        world.step(worker)
    resumed = go_on(world, World(workers, "dana"))
    before, state = world.server.chain.state_dict(), resumed.server.chain.state_dict()
    (total,) = state["momentum.velocity_sum"]
    velocities = state["momentum.velocity"]
    torch.testing.assert_close(total, torch.stack(velocities).sum(0))
    kept = min(workers, 3)
    for mine, theirs in zip(velocities[:kept], before["momentum.velocity"], strict=False):
        assert torch.equal(mine, theirs)
    assert all(not velocity.any() for velocity in velocities[kept:])


def test_one_worker_goes_on_with_its_tickets_in_the_order_in_which_it_held_them() -> None:
    world = World(1, ahead=2)
    world.join()
    world.step(0)
    bad = torch.zeros_like(world.initial)
    slot = world.server.slots[0]
    push = Push(slot.version, world.queues[0].pop(0), 8, float("nan"), float("nan"), bad)
    world.receive(world.server.push(0, push).ready)
    assert world.queues[0] == [2, 3, 1]
    resumed = go_on(world, World(1, ahead=2))
    assert resumed.queues == world.queues


def test_refused_tickets_and_held_gradients_survive() -> None:
    world = World(2, "rennala", {"admission": {"gradients": 3}})
    world.join()
    world.step(0)
    slot = world.server.slots[1]
    bad = torch.zeros_like(world.initial)
    world.server.push(1, Push(slot.version, 1, 8, float("nan"), float("nan"), bad))
    resumed = go_on(world, World(1, "rennala", {"admission": {"gradients": 3}}))
    assert resumed.step(0).record.action is Action.HELD
    assert resumed.step(0).record.action is Action.APPLIED
    assert resumed.server.tally.nonfinite == 1


def golden(name: str) -> Any:
    """A state that was written when it first got its layout number."""

    def read(value: Any) -> Any:
        if isinstance(value, list):
            return [read(each) for each in value]
        if not isinstance(value, dict):
            return value
        if list(value) == ["float32"]:
            return torch.tensor(value["float32"], dtype=torch.float32)
        if list(value) == ["pairs"]:
            return dict(value["pairs"])
        return {key: read(each) for key, each in value.items()}

    return read(json.loads((GOLDEN / f"{name}.json").read_text()))


def assert_same(mine: Any, theirs: Any, where: str = "state") -> None:
    assert type(mine) is type(theirs), where
    if isinstance(mine, dict):
        assert mine.keys() == theirs.keys(), where
        for key in mine:
            assert_same(mine[key], theirs[key], f"{where}[{key!r}]")
    elif isinstance(mine, list):
        assert len(mine) == len(theirs), where
        for number, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            assert_same(one, other, f"{where}[{number}]")
    elif isinstance(mine, torch.Tensor):
        assert torch.equal(mine, theirs), where
    else:
        assert mine == theirs, where


def test_a_state_of_before_is_loaded_and_would_be_written_again() -> None:
    world, saved = world_of(Pairs()), golden("server")
    world.server.load_state_dict(saved)
    assert_same(world.server.state_dict(), saved)
    assert_same(world.server.lasting_state(), golden("lasting"))
    world.queues = [list(tickets) for tickets in saved["ledger"]["held"]]
    finish(world, random.Random(1))
    assert world.server.complete
    assert world.server.samples == world.plan.total_samples


@pytest.mark.parametrize("workers", [1, 3])
def test_a_lasting_state_of_before_is_taken_over(workers: int) -> None:
    rule = {"momentum": {"name": "heavy-ball", "momentum": 0.5}}
    world, saved = World(workers, "dcasgd-a", rule, ahead=1, batchnorm=True), golden("lasting")
    world.server.take_over(saved)
    assert_same(world.server.lasting_state(), saved | {"num_workers": workers})
    world.join()
    assert world.queues[0][0] == saved["ledger"]["returned"][0]
    finish(world, random.Random(1))
    # One gradient was held for a second; this rule holds none, so it is never stepped along.
    assert world.server.version == saved["version"] + world.plan.num_tickets - 9


def test_the_largest_rate_so_far_outlives_a_checkpoint() -> None:
    def falling(samples: int) -> float:
        return 0.4 if samples < 30 else 0.05

    def at_work() -> World:
        return World(2, "gap-aware", {"momentum": {"momentum": 0.5}}, schedule=falling)

    def push(world: World) -> torch.Tensor:
        """One made-up push of worker 1, which is stale."""
        server, slot = world.server, world.server.slots[1]
        gradient = torch.linspace(-1, 1, len(server.weights))
        norm = float(torch.linalg.vector_norm(gradient))
        server.push(1, Push(slot.version, server.ledger.held(1)[0], 8, 1.0, norm, gradient))
        return server.weights

    world, same, later, forgetful = (at_work() for _ in range(4))
    world.join()
    for _ in range(6):
        world.step(0)
    state = through_a_file(world.server.state_dict())
    same.server.load_state_dict(state)
    forgetful.server.load_state_dict(state | {"lr_max": 0.0})
    later.server.take_over(through_a_file(world.server.lasting_state()))
    later.join()
    # The gap of the one that resumes is made, since new workers are sent fresh weights.
    later.server.slots[1].snapshot.copy_(world.server.slots[1].snapshot)
    expected = push(world)
    assert torch.equal(push(same), expected)
    assert torch.equal(push(later), expected)
    assert not torch.equal(push(forgetful), expected), "the largest rate does matter here"


def test_a_state_of_the_first_release_lacks_two_numbers() -> None:
    saved = golden("server")
    del saved["rate"], saved["held"]["unit"]
    world = world_of(Pairs())
    world.server.load_state_dict(saved)
    state = world.server.state_dict()
    assert state["rate"] is None
    assert state["held"]["unit"] == 1
