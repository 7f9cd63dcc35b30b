"""The engine where messages share the servers' links, and where a push may come in chunks.

What is on its way in one direction shares that direction's bandwidth (``link.py``). With chunks,
the server may begin with a push while it comes in, is through with it one chunk's service after the
last one has come, and the reply leaves meanwhile, all but its last chunk. Pushes are still dealt
with one after the other, those that are all there first. One that is not is begun only if the rest
of it is expected within the mean time between two pushes, or from the only worker: others have to
wait for it. Pushes in chunks come in one after the other, or as many at a time as it takes to fill
the server's link (a server finds that number out: ``transport/gate.py``).

The first weights are in every worker's hands when the run begins, but for a latency: thousands of
workers that fetch them at once would take as long as some updates, once.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from mpi_dcasgd.drivers.simulation.cluster import Cluster
from mpi_dcasgd.drivers.simulation.engine import ARRIVED, SERVED, Engine, Site
from mpi_dcasgd.drivers.simulation.link import SharedLink

_COMPUTED, _ANNOUNCED, _IN, _OUT, _DELIVERED, _LOOK = range(4, 10)
_WHOLE, _EARLY, _LAST = range(3)  # parts of a reply
_NEARLY = 1.01  # so that a look is not put off by less than a clock can tell
_PACE = 0.125  # weight of the last interval in the mean between two pushes, as a server has it


class LinkedEngine(Engine):
    """An engine with links that are shared; arguments and attributes are those of ``Engine``."""

    def __init__(
        self, cluster: Cluster, num_workers: int, message_bytes: int, seed: int, site: Site
    ) -> None:
        super().__init__(cluster, num_workers, message_bytes, seed, site)
        carriage = self._carriage
        limits = carriage.server_bytes_per_s, carriage.worker_bytes_per_s
        share_cv, late = cluster.network.share_cv, cluster.network.late_share
        self._in = SharedLink(*limits, share_cv, (seed, 0), late)
        self._out = SharedLink(*limits, share_cv, (seed, 1), late)
        self._joining = False
        # Those whose pushes in chunks are to come in, and how many may at a time.
        self._gate: deque[tuple[int, int]] = deque()
        self._room = self._places()
        # Of chunks: the places on the link of pushes that come in, and of those of them whose first
        # chunk is there; with whose push, which is not all there, the server has begun and when;
        # whose reply's first part is on its way (True) or there (False), and who waits for it.
        self._sent: dict[int, float] = {}
        self._coming: dict[int, float] = {}
        self._engaged: tuple[int, float] | None = None
        self._last_s, self._pace_s, self._looks = 0.0, 0.0, 0
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
        elif kind == _LOOK:
            if life == self._looks and not self._serving:
                self._serve()
        elif life != self._life[worker]:
            return
        elif kind == _COMPUTED:
            self._push(worker, life)
        elif kind == _ANNOUNCED:
            self._announce(worker)
        else:
            self._step(worker)

    # ---- links ----

    def _places(self) -> int:
        """Return how many pushes come in at a time."""
        carriage = self._carriage
        server, worker = carriage.server_bytes_per_s, carriage.worker_bytes_per_s
        if carriage.chunks == 1 or server == math.inf:
            return self.num_workers
        return max(1, math.ceil(server / worker))

    def _push(self, worker: int, life: int) -> None:
        self._gate.append((worker, life))
        self._let_in()

    def _let_in(self) -> None:
        while self._gate and self._in.count < self._room:
            worker, life = self._gate.popleft()
            if life == self._life[worker]:
                self._come_in(worker, life)

    def _come_in(self, worker: int, life: int) -> None:
        carriage = self._carriage
        place = self._in.begin(self.now, (worker, life, _WHOLE), carriage.wire_bytes)
        self._plan(self._in, _IN)
        if carriage.chunks > 1:
            self._sent[worker] = place
            first_s = self._in.left_s(self.now, place) / carriage.chunks
            self._at(self.now + first_s + carriage.latency_s, worker, _ANNOUNCED)

    def _came_in(self) -> None:
        worker, life, _ = self._in.end(self.now)
        self._plan(self._in, _IN)
        self._let_in()
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
        self._pace_s += _PACE * (self.now - self._last_s - self._pace_s)
        self._last_s = self.now
        self._coming.pop(worker, None)
        self._sent.pop(worker, None)
        if self._engaged is not None and self._engaged[0] == worker:
            last_s = self.now + self._service_s / self._carriage.chunks
            self._at(max(last_s, self._engaged[1] + self._service_s), worker, SERVED)
            self._engaged = None
            return 0
        self._queue.append((worker, life))
        if not self._serving:
            self._serve()
        return 0

    def _announce(self, worker: int) -> None:
        if worker in self._sent:  # it is not all there yet
            self._coming[worker] = self._sent[worker]
            if not self._serving:
                self._serve()

    def _serve(self) -> None:
        if self._carriage.chunks == 1:
            super()._serve()
            return
        self._serving = False
        while self._queue and not self._serving:
            worker, life = self._queue.popleft()
            if life == self._life[worker]:
                self._engage(worker)
                self._at(self.now + self._service_s, worker, SERVED)
        if self._coming and not self._serving:
            worker = min(self._coming, key=lambda coming: (self._coming[coming], coming))
            left_s = self._in.left_s(self.now, self._coming[worker]) + self._carriage.latency_s
            if left_s <= _NEARLY * self._pace_s or self.num_workers == 1:
                del self._coming[worker]
                self._engage(worker)
                self._engaged = worker, self.now
            else:
                self._look_again(left_s - self._pace_s)

    def _look_again(self, after_s: float) -> None:
        if self.now + after_s == self.now:
            return  # the rest of the push comes at this very instant, and is looked at then
        self._looks += 1
        self._serial += 1
        event = (self.now + after_s, 0, self._serial, _LOOK, self._looks)
        heapq.heappush(self._events, event)

    def _engage(self, worker: int) -> None:
        """Begin with a push; what is applied of it leaves again."""
        self._serving = True
        carriage = self._carriage
        if worker >= carriage.local:
            self._early[worker] = True
            share = (carriage.chunks - 1) / carriage.chunks
            self._send(worker, _EARLY, share * carriage.wire_bytes)

    def _take(self, worker: int) -> int:
        self.accounts[worker].updates += 1
        ready = self._site.push(worker)
        if worker not in ready:
            self._early.pop(worker, None)  # it has to wait, and then gets other weights
        self._start(ready)
        return 1

    def _crash(self, worker: int) -> None:
        for times in (self._sent, self._coming, self._early):
            times.pop(worker, None)
        self._answered.discard(worker)
        half = self._engaged is not None and self._engaged[0] == worker
        super()._crash(worker)
        if half:
            self._engaged = None
            self._serve()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {
            "in": self._in.state_dict(),
            "out": self._out.state_dict(),
            "gate": [list(entry) for entry in self._gate],
            "sent": list(self._sent.items()),
            "coming": list(self._coming.items()),
            "engaged": self._engaged,
            "pace": [self._last_s, self._pace_s, self._looks],
            "early": list(self._early.items()),
            "answered": sorted(self._answered),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        super().load_state_dict(saved)
        self._in.load_state_dict(saved["in"])
        self._out.load_state_dict(saved["out"])
        self._gate = deque((worker, life) for worker, life in saved["gate"])
        self._sent, self._coming = dict(saved["sent"]), dict(saved["coming"])
        self._engaged = None if saved["engaged"] is None else tuple(saved["engaged"])
        self._last_s, self._pace_s, self._looks = saved["pace"]
        self._early, self._answered = dict(saved["early"]), set(saved["answered"])


def engine_of(
    cluster: Cluster, num_workers: int, message_bytes: int, seed: int, site: Site
) -> Engine:
    """Return an engine for a cluster: with links that are shared, if any are.

    Arguments and exceptions are those of ``Engine``.
    """
    shared = cluster.carriage(message_bytes).shared
    kind = LinkedEngine if shared else Engine
    return kind(cluster, num_workers, message_bytes, seed, site)
