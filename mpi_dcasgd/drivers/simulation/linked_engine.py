"""The engine where messages share the servers' links, and where a push may come in chunks.

What is on its way in one direction shares that direction's bandwidth (``link.py``). With chunks,
the server begins with a push when its first chunk is there and is through with the last chunk one
chunk's service after it has come, and the reply leaves meanwhile, all but its last chunk. Pushes
are still dealt with one after the other.

The first weights are in every worker's hands when the run begins, but for a latency: thousands of
workers that fetch them at once would take as long as some updates, once.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mpi_dcasgd.drivers.simulation.cluster import Cluster
from mpi_dcasgd.drivers.simulation.engine import ARRIVED, SERVED, Engine, Site
from mpi_dcasgd.drivers.simulation.link import SharedLink

_COMPUTED, _ANNOUNCED, _IN, _OUT, _DELIVERED = range(4, 9)
_WHOLE, _EARLY, _LAST = range(3)  # parts of a reply


class LinkedEngine(Engine):
    """An engine with links that are shared; arguments and attributes are those of ``Engine``."""

    def __init__(
        self, cluster: Cluster, num_workers: int, message_bytes: int, seed: int, site: Site
    ) -> None:
        super().__init__(cluster, num_workers, message_bytes, seed, site)
        carriage = self._carriage
        limits = carriage.server_bytes_per_s, carriage.worker_bytes_per_s
        self._in, self._out = SharedLink(*limits), SharedLink(*limits)
        self._joining = False
        # Of chunks: who has been queued, whose push is there, with whom the server has begun and
        # when, whose reply's first part is on its way (True) or there (False), who waits for it.
        self._announced: set[int] = set()
        self._complete: set[int] = set()
        self._engaged: tuple[int, int, float] | None = None
        self._early: dict[int, bool] = {}
        self._answered: set[int] = set()

    @property
    def link_busy(self) -> float:
        could = self._carriage.server_bytes_per_s * self.now
        most = max(self._in.carried, self._out.carried)
        return most / could if 0 < could < math.inf else 0.0

    def _begin(self) -> None:
        self._joining = True
        super()._begin()
        self._joining = False

    def _start(self, workers: Sequence[int]) -> None:
        for worker in workers:
            if worker < self._carriage.local:
                self._step(worker)
            elif self._joining:
                self._at(self.now + self._carriage.latency_s, worker, _DELIVERED)
            else:
                self._reply(worker)

    def _step(self, worker: int) -> None:
        """Have the worker compute from now on."""
        end = self._clock.finish(worker, self.now)
        account = self.accounts[worker]
        account.wait_s += self.now - self._computed_s[worker]
        account.compute_s += end - self.now
        self._computed_s[worker] = end
        self._at(end, worker, ARRIVED if worker < self._carriage.local else _COMPUTED)

    def _happen(self, kind: int, worker: int, life: int) -> None:
        if kind == _IN:
            if life == self._in.turn:
                self._came_in()
        elif kind == _OUT:
            if life == self._out.turn:
                self._went_out()
        elif life != self._life[worker]:
            return
        elif kind == _COMPUTED:
            self._push(worker, life)
        elif kind == _ANNOUNCED:
            self._announce(worker, life)
        else:
            self._step(worker)

    # ---- links ----

    def _push(self, worker: int, life: int) -> None:
        carriage = self._carriage
        self._in.begin(self.now, (worker, life, _WHOLE), carriage.wire_bytes)
        self._plan(self._in, _IN)
        if carriage.chunks > 1:
            first_s = carriage.wire_bytes / carriage.chunks / self._in.rate
            self._at(self.now + first_s + carriage.latency_s, worker, _ANNOUNCED)

    def _came_in(self) -> None:
        worker, life, _ = self._in.end(self.now)
        self._plan(self._in, _IN)
        if life == self._life[worker]:
            self._at(self.now + self._carriage.latency_s, worker, ARRIVED)

    def _reply(self, worker: int) -> None:
        carriage, under_way = self._carriage, self._early.get(worker)
        if under_way is None:
            self._send(worker, _WHOLE, carriage.wire_bytes)
        elif under_way:
            self._answered.add(worker)
        else:
            self._send_last(worker)

    def _send_last(self, worker: int) -> None:
        del self._early[worker]
        self._answered.discard(worker)
        self._send(worker, _LAST, self._carriage.wire_bytes / self._carriage.chunks)

    def _send(self, worker: int, part: int, size: float) -> None:
        self._out.begin(self.now, (worker, self._life[worker], part), size)
        self._plan(self._out, _OUT)

    def _went_out(self) -> None:
        worker, life, part = self._out.end(self.now)
        self._plan(self._out, _OUT)
        if life != self._life[worker]:
            return
        if part != _EARLY:
            carriage = self._carriage
            self._at(self.now + carriage.latency_s + carriage.order_s, worker, _DELIVERED)
        elif worker in self._early:
            self._early[worker] = False
            if worker in self._answered:
                self._send_last(worker)

    def _plan(self, link: SharedLink, kind: int) -> None:
        due = link.next_s()
        if due is not None:
            time_s, worker = due
            self._serial += 1
            heapq.heappush(self._events, (time_s, worker, self._serial, kind, link.turn))

    # ---- chunks ----

    def _arrive(self, worker: int, life: int) -> int:
        if self._carriage.chunks == 1:
            return super()._arrive(worker, life)
        self._complete.add(worker)
        engaged = self._engaged
        if engaged is not None and engaged[0] == worker:
            self._finish(worker, engaged[2])
        else:
            self._announce(worker, life)
        return 0

    def _announce(self, worker: int, life: int) -> None:
        if worker in self._announced:
            return
        self._announced.add(worker)
        self._queue.append((worker, life))
        if not self._serving:
            self._serve()

    def _serve(self) -> None:
        if self._carriage.chunks == 1:
            super()._serve()
            return
        self._engaged, self._serving = None, False
        while self._queue:
            worker, life = self._queue.popleft()
            if life == self._life[worker]:
                self._engage(worker, life)
                return

    def _engage(self, worker: int, life: int) -> None:
        carriage = self._carriage
        self._engaged, self._serving = (worker, life, self.now), True
        if worker >= carriage.local:
            self._early[worker] = True
            share = (carriage.chunks - 1) / carriage.chunks
            self._send(worker, _EARLY, share * carriage.wire_bytes)
        if worker in self._complete:
            self._finish(worker, self.now)

    def _finish(self, worker: int, since_s: float) -> None:
        """Plan the end of the service of a push that is all there."""
        last_s = self.now + self._service_s / self._carriage.chunks
        self._at(max(last_s, since_s + self._service_s), worker, SERVED)

    def _take(self, worker: int) -> int:
        self._announced.discard(worker)
        self._complete.discard(worker)
        self.accounts[worker].updates += 1
        ready = self._site.push(worker)
        if worker not in ready:
            self._early.pop(worker, None)  # it has to wait, and then gets other weights
        self._start(ready)
        return 1

    def _crash(self, worker: int) -> None:
        for names in (self._announced, self._answered):
            names.discard(worker)
        self._early.pop(worker, None)
        half = self._engaged is not None and self._engaged[0] == worker
        half = half and worker not in self._complete
        self._complete.discard(worker)
        super()._crash(worker)
        if half:
            self._serve()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {
            "in": self._in.state_dict(),
            "out": self._out.state_dict(),
            "announced": sorted(self._announced),
            "complete": sorted(self._complete),
            "engaged": None if self._engaged is None else list(self._engaged),
            "early": [[worker, going] for worker, going in self._early.items()],
            "answered": sorted(self._answered),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        super().load_state_dict(saved)
        self._in.load_state_dict(saved["in"])
        self._out.load_state_dict(saved["out"])
        self._announced, self._complete = set(saved["announced"]), set(saved["complete"])
        engaged = saved["engaged"]
        self._engaged = None if engaged is None else (engaged[0], engaged[1], engaged[2])
        self._early = dict(saved["early"])
        self._answered = set(saved["answered"])


def engine_of(
    cluster: Cluster, num_workers: int, message_bytes: int, seed: int, site: Site
) -> Engine:
    """Return an engine for a cluster: with links that are shared, if any are.

    Arguments and exceptions are those of ``Engine``.
    """
    shared = cluster.carriage(message_bytes).shared
    kind = LinkedEngine if shared else Engine
    return kind(cluster, num_workers, message_bytes, seed, site)
