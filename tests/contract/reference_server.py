"""The parameter server written once more in NumPy, without speed and without any of its modules.

Rules are formulas (``mpi_dcasgd.tools.conformance.formula``). All else is here: who is granted
which ticket, what is sent to whom and when, statistics, samples, losses, returns, stops, and what
outlives the workers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mpi_dcasgd.tools.conformance.formula import ChainFormula, OnePush, Sent, Vector

ATTEMPTS = 3


@dataclass
class Worker:
    """What is known of a worker."""

    status: str = "absent"
    sent: Vector = field(default_factory=lambda: np.zeros(0))
    born: int = -1
    clock: int = 0
    tickets: list[int] = field(default_factory=list)


class ReferenceServer:
    """Weights ``w`` with running statistics ``stats`` behind them, and all tickets."""

    def __init__(
        self,
        formula: ChainFormula,
        w: Vector,
        stats: Vector,
        share: float,
        sizes: Sequence[int],
        num_workers: int,
        rate: Callable[[int], float],
        ahead: int,
    ) -> None:
        self.formula, self.w, self.stats, self.share = formula, w.copy(), stats.copy(), share
        self.sizes, self.rate, self.ahead_by = sizes, rate, ahead
        self.workers = [Worker() for _ in range(num_workers)]
        self.t = self.samples = self.next = self.closed = 0
        self.eta_max = 0.0
        self.returned: list[int] = []
        self.too_slow: dict[int, int] = {}
        self.attempts: Counter[int] = Counter()
        self.held: list[tuple[Vector, Vector, int]] = []
        self.applied = self.dropped = self.nonfinite = self.given_up = 0
        self.staleness: Counter[int] = Counter()
        self.halted = False
        self.look: tuple[Sent, float] | None = None
        self.may: Callable[[int, int], bool] | None = None
        self.wanted = 0

    @property
    def over(self) -> bool:
        return self.halted or self.closed == len(self.sizes)

    def now(self) -> Vector:
        """What a worker is sent at this moment."""
        point = self.look[0](self.w, self.look[1]) if self.look else self.w
        return np.concatenate([point, self.stats])

    def ask(self, m: int) -> None:
        """A worker's first pull."""
        self.serve(m, True)

    def deliver(self, m: int, g: Vector, stats: Vector, finite: bool) -> None:
        """A worker's push of its oldest ticket."""
        mine = self.workers[m]
        ticket = mine.tickets.pop(0)
        eta, tau = self.rate(self.samples), self.t - mine.born
        self.eta_max = max(self.eta_max, eta)
        norm = float(np.sqrt(np.sum(g**2)))
        count = len(self.workers)
        bak = mine.sent[: len(self.w)]
        push = OnePush(g, g, self.w, bak, eta, self.eta_max, tau, self.t, m, count, norm)
        mine.clock += 1
        mine.status = "parked"
        before = self.t
        if not finite:
            self.refuse(ticket, push)
        else:
            found = self.formula.admit(push)
            self.may = found.may_go_on or self.may
            if found.action == "drop":
                self.dropped += 1
                self.returned.append(ticket)
                self.too_slow[ticket] = m
                self.wake()
                self.serve(m, True)
                return
            self.closed += 1
            self.samples += self.sizes[ticket]
            self.staleness[tau] += 1
            if found.action == "apply":
                self.step(push, stats)
            else:
                self.held.append((g, stats, self.sizes[ticket]))
                if len(self.held) == found.wanted or self.closed == len(self.sizes):
                    self.step_of_held(push)
        stepped = self.t > before
        if stepped:
            mine.sent = self.now()
        self.serve(m, not stepped)
        self.wake()

    def refuse(self, ticket: int, push: OnePush) -> None:
        self.nonfinite += 1
        self.attempts[ticket] += 1
        if self.attempts[ticket] < ATTEMPTS:
            self.returned.append(ticket)
            return
        self.given_up += 1
        self.closed += 1
        self.samples += self.sizes[ticket]
        if self.closed == len(self.sizes) and self.held:
            self.step_of_held(push)

    def step_of_held(self, push: OnePush) -> None:
        weights = [samples for _, _, samples in self.held]
        g = np.average([one for one, _, _ in self.held], axis=0, weights=weights)
        stats = np.average([one for _, one, _ in self.held], axis=0, weights=weights)
        self.held = []
        self.step(replace(push, g=g, d=g, norm=float(np.sqrt(np.sum(g**2)))), stats)

    def step(self, push: OnePush, stats: Vector) -> None:
        found = self.formula.step(push)
        assert found.w is not None
        self.w = found.w
        self.stats = self.stats + self.share * (stats - self.stats)
        self.t += 1
        self.applied += 1
        if found.sent:
            self.look = found.sent, push.eta * found.lasting

    def serve(self, m: int, renew: bool) -> None:
        mine = self.workers[m]
        mine.status = "parked"
        if self.over:
            mine.status = "stopped"
            return
        if not mine.tickets and not self.returned and self.next == len(self.sizes):
            return
        busy = [one.clock for one in self.workers if one.status == "working"]
        if self.may and busy and not self.may(mine.clock, min(busy)):
            return
        while len(mine.tickets) <= self.ahead_by:
            others = [one for one in self.returned if self.too_slow.get(one) != m]
            if others or (self.next == len(self.sizes) and self.returned):
                ticket = (others or self.returned)[0]
                self.returned.remove(ticket)
                self.too_slow.pop(ticket, None)
            elif self.next < len(self.sizes):
                ticket, self.next = self.next, self.next + 1
            else:
                break
            mine.tickets.append(ticket)
        if renew:
            mine.sent = self.now()
        mine.born, mine.status = self.t, "working"

    def wake(self) -> None:
        for m, one in enumerate(self.workers):
            if one.status == "parked":
                self.serve(m, True)

    def lose(self, m: int) -> None:
        mine = self.workers[m]
        mine.status = "lost"
        self.returned += mine.tickets
        mine.tickets = []
        self.wake()

    def rejoin(self, m: int) -> None:
        busy = [one.clock for one in self.workers if one.status == "working"]
        self.workers[m].clock = max(self.workers[m].clock, min(busy, default=0))
        self.serve(m, True)

    def halt(self) -> None:
        self.halted = True
        self.wake()

    def resume_with(self, num_workers: int) -> None:
        """What a checkpoint of a real run keeps, in the hands of new workers."""
        out = [ticket for one in self.workers for ticket in one.tickets]
        self.returned = (sorted(out) if len(self.workers) > 1 else out) + self.returned
        self.too_slow = {}
        self.halted = False
        for state in self.formula.states.values():
            for key in [k for k in state if isinstance(k, int) and k >= num_workers]:
                del state[key]
        self.workers = [Worker() for _ in range(num_workers)]


def state_vector(server: ReferenceServer, role: str, name: str, m: int, part: object) -> Vector:
    """A state vector of the real server, worked out from what the formulas remember."""
    state, none = server.formula.states[role], np.zeros_like(server.w)
    if "velocities" in state or type(part).__name__ == "GapAware":
        velocities = state.get("velocities", [])
        if name == "velocity":
            return velocities[-1] if velocities else none
        memory = part.decay  # type: ignore[attr-defined]
        ages = range(len(velocities) - 1, -1, -1)
        terms = [
            (1 - memory) * math.pow(memory, age) * v**2
            for age, v in zip(ages, velocities, strict=True)
        ]
        return np.asarray(sum(terms, none))
    if name == "velocity_sum":
        return np.asarray(sum(state.values(), none))
    if type(part).__name__ == "Adam":
        return np.asarray(state.get({"mean": "m", "mean_square": "v"}[name], none))
    return np.asarray(state.get(m, state.get("server", none)))
