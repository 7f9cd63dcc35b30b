"""A server goes on from its saved state bit for bit, and refuses another's."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import World

from mpi_dcasgd.errors import ProtocolError
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.rules.admission import Admission, Verdict
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.server.state import load_server_state, server_state


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
    state = through_a_file(server_state(world.server))
    resumed = world_of(admission)
    load_server_state(resumed.server, state)
    resumed.queues = [list(queue) for queue in world.queues]
    choices = rng.getstate()
    finish(world, rng)
    rng.setstate(choices)
    finish(resumed, rng)
    assert torch.equal(resumed.server.weights, world.server.weights)
    assert vars(resumed.server.tally) == vars(world.server.tally)
    assert resumed.answers == world.answers[cut:]


def test_a_state_is_a_copy() -> None:
    world = world_of()
    world.join()
    state = server_state(world.server)
    world.step(0)
    assert torch.equal(state["weights"], world.initial)
    assert state["version"] == 0
    assert not state["tally"]["staleness"]


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
        load_server_state(other().server, server_state(world_of().server))


def test_another_layout_is_refused(tmp_path: Path) -> None:
    state = server_state(world_of().server) | {"layout": 99}
    with pytest.raises(ProtocolError, match="layout: 99, here 1"):
        load_server_state(world_of().server, state)
