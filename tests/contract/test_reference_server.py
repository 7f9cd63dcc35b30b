"""All state of the real server against reference_server.py after each event of random runs.

Workers pull one by one, are lost, come back, push NaN, and are stopped; tickets are of unequal
size; there are statistics; runs go on from checkpoints of both kinds in the middle.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from contract.reference_server import ReferenceServer, state_vector

from mpi_dcasgd.learning.flat import FlatLayout
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.rules.algorithms import resolve_rule
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.server.message import Kind
from mpi_dcasgd.server.push import Push
from mpi_dcasgd.server.server import ParameterServer
from mpi_dcasgd.tools.conformance.formula import ChainFormula
from mpi_dcasgd.tools.conformance.targets import formula_of

PARAMS, STATS = 4, 3
PLAN = TicketPlan(num_samples=53, batch_size=8, seed=0, epochs=5)  # the last of an epoch has 5
SHARE = 0.3

RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "asgd": ("asgd", {}),
    "dcasgd-c with decay inside": (
        "dcasgd-c",
        {"compensation": {"dc_lambda": 0.5}, "weight_decay": {"rate": 0.1, "place": "inside"}},
    ),
    "dcasgd-a": ("dcasgd-a", {"clipping": {"name": "norm", "max_norm": 1.2}}),
    "dcasgd-a per worker": ("dcasgd-a", {"compensation": {"mean_square": "per_worker"}}),
    "sa-asgd with heavy-ball": ("sa-asgd", {"momentum": {"name": "heavy-ball", "momentum": 0.5}}),
    "stable-asgd with nesterov": ("stable-asgd", {"momentum": "nesterov"}),
    "gap-aware": ("gap-aware", {"momentum": {"decay": 0.9}}),
    "dana": ("dana", {}),
    "dana, nominal rate": ("dana", {"step_size": {"name": "stability-preserving"}}),
    "dana-dc": ("dana-dc", {}),
    "shifted": ("asgd", {"momentum": "shifted"}),
    "adamw": (
        "asgd",
        {"momentum": "adam", "weight_decay": {"rate": 0.1, "place": "decoupled"}},
    ),
    "ringmaster with dana": ("ringmaster", {"admission": {"threshold": 2}, "momentum": "dana"}),
    "rennala": ("rennala", {"admission": {"gradients": 3}}),
    "ssp": ("ssp", {"admission": {"bound": 1}}),
}


def rate(samples: int) -> float:
    # Up and down again, so that the largest rate so far is not the present one.
    return 0.05 * (0.3 + samples % 37 / 37)


def real(rule: Rule, weights: np.ndarray[Any, Any], workers: int, ahead: int) -> ParameterServer:
    layout = FlatLayout((), (), PARAMS, STATS)
    share = torch.full((STATS,), SHARE, dtype=torch.float64)
    start = torch.from_numpy(weights.copy())
    return ParameterServer(start, layout, rule, PLAN, rate, workers, share, ahead)


def close(mine: torch.Tensor, theirs: np.ndarray[Any, Any], what: str) -> None:
    np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-9, atol=1e-11, err_msg=what)


class Both:
    """The real server and its reference, moved together."""

    def __init__(self, name: str, seed: int) -> None:
        self.choose = random.Random(seed)
        self.rng = np.random.default_rng(seed)
        self.rule = resolve_rule(*RULES[name])
        self.ahead = self.choose.choice([0, 0, 2])
        self.start = self.rng.normal(size=PARAMS + STATS)
        workers = self.choose.randrange(1, 5)
        parts = dict(self.rule.parts())
        formulas = {role: formula_of(role, part) for role, part in parts.items()}
        sizes = [PLAN.size(ticket) for ticket in range(PLAN.num_tickets)]
        self.theirs = ReferenceServer(
            ChainFormula(formulas, parts),  # type: ignore[arg-type]  # each has one
            self.start[:PARAMS], self.start[PARAMS:], SHARE, sizes, workers, rate, self.ahead,
        )  # fmt: skip
        self.mine = real(self.rule, self.start, workers, self.ahead)

    def ones(self, *status: str) -> list[int]:
        return [m for m, one in enumerate(self.theirs.workers) if one.status in status]

    def push(self, m: int, finite: bool = True) -> None:
        worker = self.theirs.workers[m]
        g = 0.8 * worker.sent[:PARAMS] + 0.5 * self.rng.normal(size=PARAMS)
        stats = self.rng.normal(size=STATS)
        norm = float(np.linalg.norm(g)) if finite else float("nan")
        ticket, vector = worker.tickets[0], torch.from_numpy(np.concatenate([g, stats]))
        version = self.mine.slots[m].version
        self.theirs.deliver(m, g, stats, finite)
        self.mine.push(m, Push(version, ticket, PLAN.size(ticket), 1.0, norm, vector))

    def event(self) -> str:
        """Something happens; what."""
        absent, working, lost = self.ones("absent"), self.ones("working"), self.ones("lost")
        dice = self.choose.random()
        if absent and (dice < 0.3 or not working):
            m = self.choose.choice(absent)
            self.theirs.ask(m)
            self.mine.pull(m)
            return f"worker {m} pulls"
        if lost and (dice < 0.1 or not working):
            m = self.choose.choice(lost)
            self.theirs.rejoin(m)
            self.mine.rejoin(m)
            return f"worker {m} rejoins"
        m = self.choose.choice(working)
        if dice > 0.95:
            self.theirs.lose(m)
            self.mine.lose(m)
            return f"worker {m} is lost"
        if dice > 0.92:
            self.through_a_state()
            return "resumed from a whole state"
        if dice > 0.9:
            workers = self.choose.randrange(1, 5)
            state = self.mine.lasting_state()
            self.theirs.resume_with(workers)
            self.mine = real(self.rule, self.rng.normal(size=PARAMS + STATS), workers, self.ahead)
            self.mine.take_over(state)
            return f"resumed with {workers} workers"
        finite = dice < 0.8
        self.push(m, finite)
        return f"worker {m} pushes{'' if finite else ' NaN'}"

    def through_a_state(self) -> None:
        state, workers = self.mine.state_dict(), len(self.theirs.workers)
        self.mine = real(self.rule, self.rng.normal(size=PARAMS + STATS), workers, self.ahead)
        self.mine.load_state_dict(state)

    def compare(self, what: str) -> None:
        mine, theirs = self.mine, self.theirs
        close(mine.weights[:PARAMS], theirs.w, f"{what}: weights")
        close(mine.weights[PARAMS:], theirs.stats, f"{what}: statistics")
        assert (mine.version, mine.samples) == (theirs.t, theirs.samples), what
        for m, (slot, worker) in enumerate(zip(mine.slots, theirs.workers, strict=True)):
            assert (slot.status, slot.clock) == (worker.status, worker.clock), f"{what}: {m}"
            assert mine.ledger.held(m) == tuple(worker.tickets), f"{what}: tickets of {m}"
            if len(worker.sent):
                close(slot.snapshot, worker.sent, f"{what}: snapshot of {m}")
                assert slot.version == worker.born, f"{what}: version of {m}"
            if worker.status == "working":
                assert (slot.message.kind, slot.message.version) == (Kind.WORK, worker.born), what
            if worker.status == "stopped":
                assert (slot.message.kind, slot.message.tickets) == (Kind.STOP, ()), what
        ledger = mine.ledger.state_dict()
        assert ledger["returned"] == theirs.returned, what
        assert ledger.get("dropped_by", {}) == theirs.too_slow, what
        assert (ledger["next"], ledger["closed"]) == (theirs.next, theirs.closed), what
        tally = mine.tally
        assert tally.staleness == theirs.staleness, what
        assert (tally.applied, tally.dropped) == (theirs.applied, theirs.dropped), what
        assert (tally.nonfinite, tally.given_up) == (theirs.nonfinite, theirs.given_up), what
        self.compare_state(what)

    def compare_state(self, what: str) -> None:
        state, theirs = self.mine.state_dict(), self.theirs
        assert state["attempts"] == dict(theirs.attempts), what
        assert state["halted"] == theirs.halted, what
        assert state["lr_max"] >= theirs.eta_max, what  # asking is looking at the rate, too
        assert state["held"]["count"] == len(theirs.held), what
        if theirs.held:
            samples = sum(one[2] for one in theirs.held)
            mean = state["held"]["sum"] / (samples / state["held"]["unit"])
            weights = [one[2] for one in theirs.held]
            expected = np.average([one[0] for one in theirs.held], axis=0, weights=weights)
            close(mean[:PARAMS], expected, f"{what}: held gradients")
        parts = dict(self.rule.parts())
        for key, vectors in self.mine.chain.state_dict().items():
            role, _, name = key.partition(".")
            for m, vector in enumerate(vectors):
                expected = state_vector(theirs, role, name, m, parts[role])
                close(vector, expected, f"{what}: {key} {m}")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", RULES)
def test_every_bit_of_state_is_as_in_the_reference(name: str, seed: int) -> None:
    both = Both(name, 100 * seed + len(name))
    events, most = 0, both.choose.choice([25, 90])
    while both.ones("absent", "working") and events < most:
        what = both.event()
        events += 1
        both.compare(f"event {events}: {what}")
    if not both.theirs.over:
        both.theirs.halt()
        both.mine.halt()
        both.compare("halted")
        both.through_a_state()
        both.compare("halted and resumed")
    for m in both.ones("working"):
        both.push(m)
        both.compare(f"worker {m} pushes its last")
    assert both.mine.finished == (not both.ones("absent", "working"))
    assert both.mine.complete == (both.theirs.closed == PLAN.num_tickets)
