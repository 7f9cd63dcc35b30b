"""Hosts from which nothing comes any more: the run is saved while it still can be.

A host that is cut off, or without power, looks at first like workers that are slow. When the
launcher finds out, it may end the server within half a second, if that is not on the launcher's own
host. So the state is saved whenever all workers of another host have been silent for a quarter of
their patience, and at every further quarter.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

PARTS = 4
"""States that are saved within a patience."""
_NEVER_S = 15.0
_LOOK_EVERY_S = 1.0  # the server asks at every push


class Silence(Protocol):
    """Whoever knows how long workers have been silent (``drivers.patience.Watch``)."""

    def silent_s(self, worker: int) -> float:
        """Seconds since the worker was asked, or 0 if it was not."""

    def patience_s(self, worker: int) -> float:
        """Seconds that the worker may be silent for."""


class HostWatch:
    """Watch over the hosts of the workers.

    Args:
        hosts: The host of each worker.
        own: The server's host, which cannot be cut off from it.
        watch: Knows how long each worker has been silent.
        tell: Is called with a line for people when a host falls silent.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        own: str,
        watch: Silence,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watch = watch
        self._tell = tell
        self._clock = clock
        self._next_s = clock()
        self._saved: dict[str, int] = {}
        self._workers: Mapping[str, list[int]] = {
            host: [worker for worker, other in enumerate(hosts) if other == host]
            for host in dict.fromkeys(hosts)
            if host and host != own
        }

    def save_now(self) -> bool:
        """Return whether nothing has come from a host for another quarter of the patience."""
        now = self._clock()
        if now < self._next_s:
            return False
        self._next_s = now + _LOOK_EVERY_S
        save = False
        for host, workers in self._workers.items():
            parts = min(map(self._parts, workers))
            saved, self._saved[host] = self._saved.get(host, 0), parts
            if parts > saved:
                save = True
                if saved == 0:
                    self._tell(f"nothing comes from {host} any more: saving the run")
        return save

    def _parts(self, worker: int) -> int:
        patience_s = self._watch.patience_s(worker)
        part_s = patience_s / PARTS if math.isfinite(patience_s) else _NEVER_S
        return int(self._watch.silent_s(worker) / part_s)
