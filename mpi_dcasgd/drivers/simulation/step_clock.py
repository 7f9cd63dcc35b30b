"""Virtual clock of a synchronous run: the end of each step, and the workers that made it.

Without backup workers a step takes as long as its slowest worker. With ``b`` of them, ``N + b``
workers compute and the first N that are done make the step; what comes later is dropped on
arrival (Chen et al., "Revisiting Distributed Synchronous SGD", 2016).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import Any

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.drivers.simulation.cluster import Cluster, WorkerClock, crash_s, crashing
from mpi_dcasgd.drivers.simulation.engine import accounts_state, load_accounts


class StepClock:
    """End of each synchronous step, and the workers that made it.

    Args:
        cluster: Decides how long everything takes. A worker that crashes comes back after its
            repair and computes its gradient anew: the group waits for it.
        num_workers: All of them, backups included.
        needed: How many workers' gradients make a step.
        vector_bytes: What is reduced over the workers of a step.
        seed: Of the delays.

    Attributes:
        now: Virtual seconds since the start.
        accounts: How each worker's were spent; waiting is not told apart from them.
        crashes: How many there were.
        dropped: Gradients that came too late.
        grant: How many minibatches the worker finds to compute, one after the other; asked
            whenever one is free.
        hand_back: Told when a worker's gradient came too late.
    """

    def __init__(
        self, cluster: Cluster, num_workers: int, needed: int, vector_bytes: int, seed: int
    ) -> None:
        self.now = 0.0
        self.accounts = [Account(worker=worker) for worker in range(num_workers)]
        self.crashes = 0
        self.dropped = 0
        self.grant: Callable[[int], int] = lambda worker: 1
        self.hand_back: Callable[[int], None] = lambda worker: None
        self._needed = needed
        self._reduce_s = cluster.network.allreduce_s(
            cluster.exchange.wire_bytes(vector_bytes), needed
        )
        self._cluster = cluster
        self._seed = seed
        self._clock = WorkerClock(cluster, num_workers, seed)
        self._life = [0] * num_workers
        self._death_s: list[float | None] = [None] * num_workers
        for worker in crashing(cluster, num_workers):
            self._rise(worker, 0.0)
        # (time, worker, step): the order of arrivals is total, ties go by rank.
        self._events: list[tuple[float, int, int]] = []
        self._free = list(range(num_workers))
        self._step = 0

    def step(self) -> list[int]:
        """Make one step; the workers whose gradients are in it, by rank, or none at the end."""
        self._step += 1
        free, self._free = self._free, []
        for worker in free:
            self._start(worker)
        got: list[int] = []
        while self._events and len(got) < self._needed:
            self.now, worker, step = heapq.heappop(self._events)
            self.accounts[worker].updates += 1
            if step == self._step:
                got.append(worker)
            else:
                self.dropped += 1
                self.hand_back(worker)
                self._start(worker)
        if not got:
            return []
        self.now += self._reduce_s
        self._free = sorted(self._free + got)
        return sorted(got)

    def _start(self, worker: int) -> None:
        minibatches = self.grant(worker)
        if not minibatches:
            self._free.append(worker)  # it asks again at the next step
            return
        end = self._finish(worker, self.now, minibatches)
        self.accounts[worker].compute_s += end - self.now
        heapq.heappush(self._events, (end, worker, self._step))

    def _finish(self, worker: int, begin_s: float, minibatches: int) -> float:
        end_s = self._work(worker, begin_s, minibatches)
        crashes, death_s = self._cluster.crashes, self._death_s[worker]
        while crashes is not None and death_s is not None and death_s < end_s:
            self.crashes += 1
            back_s = max(begin_s, death_s + crashes.repair_s)
            death_s = self._rise(worker, death_s + crashes.repair_s)
            end_s = self._work(worker, back_s, minibatches)
        return end_s

    def _work(self, worker: int, begin_s: float, minibatches: int) -> float:
        for _ in range(minibatches):
            begin_s = self._clock.finish(worker, begin_s)
        return begin_s

    def _rise(self, worker: int, now_s: float) -> float:
        crashes = self._cluster.crashes
        assert crashes is not None  # or there would be nobody to rise
        death_s = now_s + crash_s(crashes, self._seed, worker, self._life[worker])
        self._life[worker] += 1
        self._death_s[worker] = death_s
        return death_s

    def state_dict(self) -> dict[str, Any]:
        """Return plain values for ``load_state_dict`` to continue from, bit for bit."""
        return {
            "now": self.now,
            "dropped": self.dropped,
            "life": list(self._life),
            "death_s": list(self._death_s),
            "events": [list(event) for event in self._events],
            "free": list(self._free),
            "step": self._step,
            "clock": self._clock.state_dict(),
            "spent": accounts_state(self.accounts, crashes=self.crashes),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken, of a clock made with the same arguments."""
        self.now = saved["now"]
        self.dropped = saved["dropped"]
        self._life = list(saved["life"])
        self._death_s = list(saved["death_s"])
        self._events = [(time_s, worker, step) for time_s, worker, step in saved["events"]]
        self._free = list(saved["free"])
        self._step = saved["step"]
        self._clock.load_state_dict(saved["clock"])
        load_accounts(self.accounts, saved["spent"])
        self.crashes = int(saved["spent"]["crashes"])
