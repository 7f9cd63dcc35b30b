"""A virtual clock and a queue of events: what happens when, without anything being computed.

A worker's cycle is: compute, uplink, wait in the server's queue, service, downlink. The server
takes pushes one after the other in order of arrival. Events of the same instant happen in order
of rank, so a run is the same every time, on every machine.

What a push *does* is the business of a site: one with a real server and real gradients
(``asynchronous.py``), or one that only counts (``timing.py``).
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.drivers.simulation.cluster import Cluster, WorkerClock, crash_s, crashing
from mpi_dcasgd.errors import DcasgdError


class Site(Protocol):
    """State machine that the engine moves; each answer names the workers that were sent work."""

    @property
    def done(self) -> bool:
        """Return whether the run is over."""

    def join(self, worker: int) -> Sequence[int]:
        """The worker asks for work, at the start."""

    def push(self, worker: int) -> Sequence[int]:
        """Deliver the worker's result."""

    def lose(self, worker: int) -> Sequence[int]:
        """The worker is dead."""

    def rejoin(self, worker: int) -> Sequence[int]:
        """The worker is back."""


_ARRIVED, _SERVED, _CRASHED, _REPAIRED = range(4)  # kinds of events; plain, to be saved


def accounts_state(
    accounts: Sequence[Account], *, crashes: int, server_busy_s: float = 0.0
) -> dict[str, Any]:
    """Return where virtual time went in plain values, as a simulator's checkpoint holds it."""
    return {
        "compute_s": [account.compute_s for account in accounts],
        "wait_s": [account.wait_s for account in accounts],
        "pushes": [account.updates for account in accounts],
        "server_busy_s": server_busy_s,
        "crashes": crashes,
    }


def load_accounts(accounts: Sequence[Account], state: Mapping[str, Any]) -> None:
    """Restore the workers' part of ``accounts_state``."""
    columns = (state["compute_s"], state["wait_s"], state["pushes"])
    for account, *values in zip(accounts, *columns, strict=True):
        account.compute_s, account.wait_s, account.updates = values


class Engine:
    """Moves workers through virtual time.

    Args:
        cluster: Decides how long everything takes.
        num_workers: Workers 0 .. num_workers - 1.
        message_bytes: Of a push and of a reply.
        seed: Of the delays.
        site: What a push does.

    Attributes:
        now: Virtual seconds since the start.
        accounts: Where each worker's went, a step that is being computed included up to its end.
        server_busy_s: Seconds in which the server was taking pushes.
        crashes: How many there were.

    Raises:
        ConfigError: The cluster speaks of workers that there are not.
    """

    def __init__(
        self, cluster: Cluster, num_workers: int, message_bytes: int, seed: int, site: Site
    ) -> None:
        self.now = 0.0
        self.num_workers = num_workers
        self.accounts = [Account(worker=worker) for worker in range(num_workers)]
        self.server_busy_s = 0.0
        self.crashes = 0
        self._cluster = cluster
        self._until_s = math.inf if cluster.until_s is None else cluster.until_s
        self._seed = seed
        self._site = site
        self._clock = WorkerClock(cluster, num_workers, seed)
        self._message_s = cluster.network.message_s(message_bytes)
        self._service_s = cluster.server.push_s(message_bytes)
        # (time, rank, serial, kind, life): the serial makes the order total, and an event of a
        # life that has ended in a crash does not happen.
        self._events: list[tuple[float, int, int, int, int]] = []
        self._serial = 0
        self._life = [0] * num_workers
        self._queue: deque[tuple[int, int]] = deque()
        self._serving = False
        self._computed_s = [0.0] * num_workers
        self._alive = [True] * num_workers
        self._begun = False

    def run(self, pushes: int | None = None) -> None:
        """Go on until the site is done, or until so many more pushes were served.

        Raises:
            DcasgdError: Nothing can happen any more, though the site is not done.
        """
        if not self._begun:
            self._begin()
        target = (
            None if pushes is None else sum(account.updates for account in self.accounts) + pushes
        )
        served = 0 if target is None else target - (pushes or 0)
        events, pop = self._events, heapq.heappop
        while not self._site.done and served != target and not self.over:
            if not events:
                raise DcasgdError(
                    "the simulated run stands still: no worker has anything to do, "
                    "and tickets are left"
                )
            self.now, worker, _, kind, life = pop(events)
            if kind == _ARRIVED:
                if life == self._life[worker]:
                    served += self._arrive(worker, life)
            elif kind == _SERVED:
                served += self._served(worker, life)
            elif kind == _CRASHED:
                self._crash(worker)
            else:
                self._repair(worker)

    @property
    def over(self) -> bool:
        """True if all that is left to happen is after the end of the run."""
        return bool(self._events) and self._events[0][0] > self._until_s

    def computed_s(self, worker: int) -> float:
        """Seconds that the worker has computed until now, an unfinished step as far as it got."""
        ahead = max(0.0, self._computed_s[worker] - self.now) if self._alive[worker] else 0.0
        return max(0.0, self.accounts[worker].compute_s - ahead)

    def _begin(self) -> None:
        self._begun = True
        for worker in range(self.num_workers):
            self._start(self._site.join(worker))
        for worker in crashing(self._cluster, self.num_workers):
            self._fate(worker)

    def _start(self, workers: Sequence[int]) -> None:
        """Replies leave for these workers now."""
        accounts, message_s = self.accounts, self._message_s
        for worker in workers:
            begin = self.now + message_s
            end = self._clock.finish(worker, begin)
            account = accounts[worker]
            account.wait_s += begin - self._computed_s[worker]
            account.compute_s += end - begin
            self._computed_s[worker] = end
            self._at(end + message_s, worker, _ARRIVED)

    def _at(self, time_s: float, worker: int, kind: int) -> None:
        self._serial += 1
        heapq.heappush(self._events, (time_s, worker, self._serial, kind, self._life[worker]))

    def _arrive(self, worker: int, life: int) -> int:
        if self._service_s == 0.0:
            return self._take(worker)
        self._queue.append((worker, life))
        if not self._serving:
            self._serve()
        return 0

    def _serve(self) -> None:
        """The server begins with the first push in its queue."""
        queue = self._queue
        while queue:
            worker, life = queue.popleft()
            if life == self._life[worker]:
                self._serving = True
                self._at(self.now + self._service_s, worker, _SERVED)
                return
        self._serving = False

    def _served(self, worker: int, life: int) -> int:
        # The server was busy with it, whether or not the worker has died meanwhile.
        self.server_busy_s += self._service_s
        taken = self._take(worker) if life == self._life[worker] else 0
        self._serve()
        return taken

    def _take(self, worker: int) -> int:
        self.accounts[worker].updates += 1
        self._start(self._site.push(worker))
        return 1

    def _fate(self, worker: int) -> None:
        crashes = self._cluster.crashes
        assert crashes is not None  # or the worker would not be among those that crash
        life_s = crash_s(crashes, self._seed, worker, self._life[worker])
        self._at(self.now + life_s, worker, _CRASHED)

    def _crash(self, worker: int) -> None:
        crashes = self._cluster.crashes
        assert crashes is not None
        # Of what it was computing, only what it came to was spent.
        self.accounts[worker].compute_s -= max(0.0, self._computed_s[worker] - self.now)
        self.crashes += 1
        self._life[worker] += 1
        self._alive[worker] = False
        self._at(self.now + crashes.repair_s, worker, _REPAIRED)
        self._start(self._site.lose(worker))

    def _repair(self, worker: int) -> None:
        self._alive[worker] = True
        self._computed_s[worker] = self.now
        self._fate(worker)
        self._start(self._site.rejoin(worker))

    def state_dict(self) -> dict[str, Any]:
        """Return plain values for ``load_state_dict`` to continue from, bit for bit."""
        return {
            "now": self.now,
            "events": [list(event) for event in self._events],
            "serial": self._serial,
            "life": list(self._life),
            "queue": [list(entry) for entry in self._queue],
            "serving": self._serving,
            "computed_s": list(self._computed_s),
            "alive": list(self._alive),
            "begun": self._begun,
            "clock": self._clock.state_dict(),
            "spent": accounts_state(
                self.accounts, crashes=self.crashes, server_busy_s=self.server_busy_s
            ),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken, of an engine made with the same arguments."""
        self.now = float(saved["now"])
        self._events[:] = [tuple(event) for event in saved["events"]]
        self._serial = int(saved["serial"])
        self._life = list(saved["life"])
        self._queue = deque((worker, life) for worker, life in saved["queue"])
        self._serving = bool(saved["serving"])
        self._computed_s = list(saved["computed_s"])
        self._alive = list(saved["alive"])
        self._begun = bool(saved["begun"])
        self._clock.load_state_dict(saved["clock"])
        load_accounts(self.accounts, saved["spent"])
        self.server_busy_s = float(saved["spent"]["server_busy_s"])
        self.crashes = int(saved["spent"]["crashes"])
