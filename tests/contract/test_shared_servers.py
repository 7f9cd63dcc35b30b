"""Servers that share a model have the bits of one that has the whole, whatever happens to them."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from crews import LocalCrew, SharedServer
from torch import Tensor

from mpi_dcasgd.learning.layout import FlatLayout
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.rules.algorithms import ALGORITHMS, resolve_rule
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.rules.stretch import Stretch
from mpi_dcasgd.server.orders import Order, OrderKind
from mpi_dcasgd.server.precision import WireSettings
from mpi_dcasgd.server.push import Push
from mpi_dcasgd.server.server import ParameterServer
from mpi_dcasgd.server.wire import round_gradient

PARAMS, STATS = 7 * 16, 16
PLAN = TicketPlan(num_samples=53, batch_size=8, seed=0, epochs=8)  # the last of an epoch has 5
GROUPS = (Stretch(0, 40, lr=0.5), Stretch(40, 96), Stretch(96, PARAMS, lr=2.0, weight_decay=0.0))
LAYOUT = FlatLayout((), (), PARAMS, STATS, GROUPS)

RULES: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        name: (name, {})
        for name, algorithm in ALGORITHMS.items()
        if algorithm.mode == "asynchronous"
    },
    "clipped, decayed, per worker": (
        "dcasgd-a",
        {
            "clipping": {"name": "norm", "max_norm": 1.2},
            "weight_decay": {"rate": 0.1, "place": "decoupled"},
            "compensation": {"mean_square": "per_worker"},
        },
    ),
    "dropped": ("ringmaster", {"admission": {"threshold": 2}, "momentum": "dana"}),
    "held": ("rennala", {"admission": {"gradients": 3}, "momentum": "adam"}),
    "waiting": ("ssp", {"admission": {"bound": 1}}),
    "in fp16": ("dcasgd-a", {}),
    "held in fp16": ("rennala", {"admission": {"gradients": 3}}),
    "ahead in bf16": ("dana", {}),
}
WIRES = {
    "in fp16": WireSettings(push="fp16", reply="fp16"),
    "held in fp16": WireSettings(push="fp16", reply="bf16"),
    "ahead in bf16": WireSettings(push="bf16", reply="bf16"),
}


def rate(samples: int) -> float:
    return 0.05 * (0.3 + samples % 37 / 37)


class Pair:
    """One server, and several as one, of the same run."""

    def __init__(self, name: str, workers: int, servers: int, start: Tensor) -> None:
        rule = resolve_rule(*RULES[name])
        share = torch.full((STATS,), 0.3)
        given = LAYOUT, rule, PLAN, rate, workers, share, 1
        self.wire = WIRES.get(name, WireSettings())
        self.alone = ParameterServer(start.clone(), *given, wire=self.wire)
        self.shared = SharedServer(start.clone(), *given, servers=servers, wire=self.wire)

    def same(self) -> None:
        assert torch.equal(self.shared.server.weights, self.alone.weights)
        for worker, slot in enumerate(self.alone.slots):
            theirs = self.shared.server.slots[worker]
            assert (theirs.status, theirs.version) == (slot.status, slot.version)
            if slot.status == "working":
                assert torch.equal(self.shared.snapshot(worker), slot.snapshot)
                assert theirs.message.tickets == slot.message.tickets

    def push(self, worker: int, rng: torch.Generator, *, torn: bool) -> None:
        slot = self.alone.slots[worker]
        ticket = self.alone.ledger.held(worker)[0]
        vector = torch.randn(LAYOUT.size, generator=rng)
        # As small as gradients may be, so that float16 has to be scaled.
        vector[:PARAMS] *= 1e-9 if self.wire.push == "fp16" else 1.0
        norm = math.nan if torn else float(torch.linalg.vector_norm(vector[:PARAMS]))
        round_gradient(vector[:PARAMS], self.wire.push, norm)
        push = Push(slot.version, ticket, PLAN.size(ticket), 1.0, norm, vector, stats_finite=True)
        assert self.shared.push(worker, push) == self.alone.push(worker, push)


@pytest.mark.parametrize("name", RULES)
def test_they_have_the_bits_of_one(name: str) -> None:
    choose = random.Random(name)
    rng = torch.Generator().manual_seed(5)
    pair = Pair(name, 3, 2, torch.randn(LAYOUT.size, generator=rng))
    lost: set[int] = set()
    for worker in range(3):
        assert pair.shared.reply(pair.shared.server.pull(worker)) == pair.alone.pull(worker)
    for number in range(60):
        working = [w for w, slot in enumerate(pair.alone.slots) if slot.status == "working"]
        if not working:
            break
        if number == 20:  # it goes on with other numbers of workers and of servers
            states = pair.alone.lasting_state(), pair.shared.server.lasting_state()
            assert same(*states)
            pair = Pair(name, 2, 3, torch.zeros(LAYOUT.size))
            pair.alone.take_over(states[0])
            pair.shared.server.take_over(states[1])
            lost.clear()
            for worker in range(2):
                assert pair.shared.reply(pair.shared.server.pull(worker)) == pair.alone.pull(worker)
        elif lost and choose.random() < 0.3:
            back = lost.pop()
            assert pair.shared.reply(pair.shared.server.rejoin(back)) == pair.alone.rejoin(back)
        elif len(working) > 1 and choose.random() < 0.05:
            gone = choose.choice(working)
            lost.add(gone)
            assert pair.shared.reply(pair.shared.server.lose(gone)) == pair.alone.lose(gone)
        else:
            pair.push(choose.choice(working), rng, torn=choose.random() < 0.1)
        pair.same()
    assert pair.alone.version > 5
    assert pair.shared.crew.told


def test_the_others_are_asked_for_their_weights_once_a_version() -> None:
    rng = torch.Generator().manual_seed(5)
    pair = Pair("asgd", 1, 2, torch.randn(LAYOUT.size, generator=rng))
    pair.alone.pull(0)
    pair.shared.server.pull(0)
    pair.same()
    assert pair.shared.crew.told == [
        Order(OrderKind.RENEW, 0, Facts(rate(0), rate(0), 0, 0, 0, 1, 0.0))
    ]
    assert not pair.shared.crew.asked, "the weights that they began with are known"
    pair.push(0, rng, torn=False)
    pair.same()
    pair.same()
    assert pair.shared.crew.asked == [OrderKind.HAND_IN_WEIGHTS]
    resumed = Pair("asgd", 1, 3, torch.zeros(LAYOUT.size))
    resumed.shared.server.take_over(pair.alone.lasting_state())
    assert torch.equal(resumed.shared.server.weights, pair.alone.weights)
    assert not resumed.shared.crew.asked, "so are those that they were handed"


def test_a_leader_updates_its_shard_in_the_way_that_was_asked_for() -> None:
    rule, share, start = resolve_rule("asgd"), torch.full((STATS,), 0.3), torch.zeros(LAYOUT.size)
    crew = LocalCrew(start, LAYOUT, rule, 1, share, 2)
    leader = ParameterServer(start, LAYOUT, rule, PLAN, rate, 1, share, fuse="plain", crew=crew)
    assert leader.chain.kernel == "plain"


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal, bit for bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
