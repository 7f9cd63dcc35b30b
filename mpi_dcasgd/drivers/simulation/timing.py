"""The simulator without gradients: throughput, staleness and utilisation of very many workers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpi_dcasgd.drivers.simulation.cluster import Cluster
from mpi_dcasgd.drivers.simulation.engine import Engine
from mpi_dcasgd.drivers.simulation.linked_engine import engine_of
from mpi_dcasgd.drivers.simulation.step_clock import StepClock
from mpi_dcasgd.rules.admission import AcceptAll, Admission
from mpi_dcasgd.rules.part import Facts


class CountingSite:
    """A parameter server that knows versions and clocks and no weights.

    It says of every push what ``ParameterServer`` would say: applied, dropped or held, and who is
    given new work. An admission part that lets workers wait is shown only the slowest of the
    others' clocks, which is all that such a part looks at.

    Args:
        num_workers: Workers 0 .. num_workers - 1.
        updates: The run is over after so many.
        admission: Which gradients may enter.

    Attributes:
        version: Updates so far.
        staleness: Of the gradients that entered: how many of each.
        dropped: Gradients that did not.
    """

    def __init__(self, num_workers: int, updates: int, admission: Admission | None = None) -> None:
        self.version = 0
        self.staleness: Counter[int] = Counter()
        self.dropped = 0
        self._updates = updates
        self._admission = admission or AcceptAll()
        self._plain = isinstance(self._admission, AcceptAll)
        self._waits = type(self._admission).may_go_on is not Admission.may_go_on
        self._pulled = [0] * num_workers
        self._held = 0
        self._clocks = [0] * num_workers
        self._working: Counter[int] = Counter()
        self._slowest = 0
        self._parked: set[int] = set()
        self._busy = [False] * num_workers
        self._woken_at = -1

    @property
    def done(self) -> bool:
        return self.version >= self._updates

    def join(self, worker: int) -> Sequence[int]:
        return self._serve(worker)

    def push(self, worker: int) -> Sequence[int]:
        staleness = self.version - self._pulled[worker]
        if self._plain:
            self.version += 1
            self.staleness[staleness] += 1
            self._pulled[worker] = self.version
            return (worker,)
        self._admit(worker, staleness)
        if not self._waits:
            self._pulled[worker] = self.version
            return (worker,)
        self._leave(worker)
        self._clocks[worker] += 1
        return [*self._serve(worker), *self._wake()]

    def lose(self, worker: int) -> Sequence[int]:
        self._parked.discard(worker)
        self._leave(worker)
        return self._wake()

    def rejoin(self, worker: int) -> Sequence[int]:
        if self._working:
            self._clocks[worker] = max(self._clocks[worker], self._min())
        return self._serve(worker)

    def _admit(self, worker: int, staleness: int) -> None:
        facts = Facts(1.0, 1.0, staleness, self.version, worker, len(self._pulled), 0.0)
        verdict = self._admission.verdict(facts)
        if verdict == "drop":
            self.dropped += 1
            return
        self.staleness[staleness] += 1
        if verdict == "hold":
            self._held += 1
            if self._held < self._admission.collect(len(self._pulled)):
                return
            self._held = 0
        self.version += 1

    def _serve(self, worker: int) -> Sequence[int]:
        if self._waits:
            others = [self._min()] if self._working else []
            if not self._admission.may_go_on(self._clocks[worker], others):
                self._parked.add(worker)
                return ()
            self._parked.discard(worker)
            clock = self._clocks[worker]
            self._working[clock] += 1
            self._busy[worker] = True
            self._slowest = min(self._slowest, clock) if len(self._working) > 1 else clock
        self._pulled[worker] = self.version
        return (worker,)

    def _leave(self, worker: int) -> None:
        if self._busy[worker]:
            self._busy[worker] = False
            clock = self._clocks[worker]
            self._working[clock] -= 1
            if not self._working[clock]:
                del self._working[clock]

    def _min(self) -> int:
        while self._slowest not in self._working:
            self._slowest += 1
        return self._slowest

    def _wake(self) -> list[int]:
        slowest = self._min() if self._working else -1
        if slowest == self._woken_at and self._working:
            return []  # those who wait were refused by this very clock
        self._woken_at = slowest
        return [ready for worker in sorted(self._parked) for ready in self._serve(worker)]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Result of a timing-only simulation.

    Attributes:
        num_workers: Without the server.
        updates: Made in all.
        time_s: Virtual seconds that they took.
        staleness: How many gradients entered with each staleness.
        dropped: Gradients that were refused.
        server_busy: Share of the time in which the server was taking pushes.
        workers_busy: Share of the workers' time in which they computed, by worker.
        crashes: How many there were.
        link_busy: Share of what the servers' links could have carried, in the busier direction;
            0 for links without limit.
    """

    num_workers: int
    updates: int
    time_s: float
    staleness: dict[int, int]
    dropped: int
    server_busy: float
    workers_busy: list[float]
    crashes: int
    link_busy: float = 0.0

    @property
    def updates_per_s(self) -> float:
        """Updates in a virtual second."""
        return self.updates / self.time_s if self.time_s else float("inf")

    @property
    def staleness_mean(self) -> float:
        """Mean over the gradients that entered."""
        count = sum(self.staleness.values())
        return sum(s * n for s, n in self.staleness.items()) / count if count else 0.0

    def staleness_quantile(self, share: float) -> int:
        """The smallest staleness that so large a share of the gradients do not exceed."""
        values = sorted(self.staleness)
        counts = np.cumsum([self.staleness[value] for value in values])
        return values[int(np.searchsorted(counts, share * counts[-1]))] if values else 0


def simulate_timing_in_full(
    cluster: Cluster, num_workers: int, updates: int, message_bytes: int = 0
) -> Engine:
    """Simulate plain asynchronous updates, and give back the engine with all that it knows."""
    site = CountingSite(num_workers, updates)
    engine = engine_of(cluster, num_workers, message_bytes, 0, site)
    engine.run()
    return engine


def simulate_timing(
    cluster: Cluster,
    num_workers: int,
    updates: int,
    *,
    message_bytes: int = 0,
    seed: int = 0,
    admission: Admission | None = None,
) -> Timing:
    """Simulate an asynchronous run without computing any gradient.

    Args:
        cluster: How long everything takes.
        num_workers: Without the server.
        updates: How many to make.
        message_bytes: Of a push and of a reply, in float32.
        seed: Of the delays.
        admission: Which gradients may enter; all by default.
    """
    site = CountingSite(num_workers, updates, admission)
    engine = engine_of(cluster, num_workers, message_bytes, seed, site)
    engine.run()
    time_s = engine.now
    return Timing(
        num_workers=num_workers,
        updates=site.version,
        time_s=time_s,
        staleness=dict(sorted(site.staleness.items())),
        dropped=site.dropped,
        server_busy=engine.server_busy_s / time_s if time_s else 0.0,
        workers_busy=[engine.computed_s(w) / time_s if time_s else 0.0 for w in range(num_workers)],
        crashes=engine.crashes,
        link_busy=engine.link_busy,
    )


def simulate_synchronous_timing(
    cluster: Cluster,
    num_workers: int,
    steps: int,
    *,
    backup: int = 0,
    accumulate: int = 1,
    message_bytes: int = 0,
    seed: int = 0,
) -> Timing:
    """Simulate synchronous steps without computing any gradient.

    Args:
        cluster: How long everything takes.
        num_workers: Those whose gradients make a step.
        steps: How many to make.
        backup: Workers beyond those.
        accumulate: Minibatches of each worker that make one step.
        message_bytes: Of the vector that is reduced.
        seed: Of the delays.
    """
    everyone = num_workers + backup
    clock = StepClock(cluster, everyone, num_workers, message_bytes, seed)
    clock.grant = lambda worker: accumulate
    until_s = math.inf if cluster.until_s is None else cluster.until_s
    made = 0
    while made < steps and clock.now <= until_s:
        clock.step()
        made += clock.now <= until_s
    time_s = clock.now
    return Timing(
        num_workers=everyone,
        updates=made,
        time_s=time_s,
        staleness={0: made},
        dropped=clock.dropped,
        server_busy=0.0,
        workers_busy=[
            min(1.0, account.compute_s / time_s) if time_s else 0.0 for account in clock.accounts
        ],
        crashes=clock.crashes,
    )
