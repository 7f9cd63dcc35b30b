"""Patience with workers: how long one may be silent before it is held to hang.

With ``patience: auto`` a worker may be silent for ::

    max(FLOOR_S, STEPS * its longest step so far)

and for ``FIRST_S`` before its first push, as its first step loads and compiles. A step is the time
from the server's reply to the worker's push. Time in which nobody looked does not count: a server
that was stopped itself, or was busy, does not blame the workers for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from mpi_dcasgd.drivers.fault_settings import FaultSettings

STEPS = 20.0
"""Steps that a worker may be silent for."""
FLOOR_S = 60.0
"""Least patience: steps of some milliseconds take seconds where many processes share a core."""
FIRST_S = 300.0
"""Least patience with a first step."""
LAST_ONES = 10.0
"""Patience with a rank that nobody can stand in for, in proportion to that with others."""
STOP_STEPS = 3.0
"""Steps that a worker is waited for once the run is to stop."""
STOP_FLOOR_S = 10.0
"""Least patience once the run is to stop."""

_LONGEST_LOOK_S = 1.0
_LOOK_EVERY_S = 0.1


class Watch:
    """Watch over workers, each of which is either asked for something or not.

    Args:
        settings: The job's ``faults:`` section.
        num_workers: Number of workers.
        clock: Seconds, monotonic.

    Example:
        >>> now = iter([0.0, 0.5, 1.0, 1.5, 2.0, 2.5]).__next__
        >>> watch = Watch(FaultSettings(patience=1.0), 2, clock=now)
        >>> watch.asked(0)
        >>> [watch.look() for _ in range(4)]
        [[], [], [0], [0]]
    """

    def __init__(
        self,
        settings: FaultSettings,
        num_workers: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._last = clock()
        self._watched = 0.0
        self._next = 0.0
        self._stopping = False
        self._since: list[float | None] = [None] * num_workers
        self._longest: list[float | None] = [None] * num_workers

    def asked(self, worker: int) -> None:
        """Begin to wait for a worker."""
        self._since[worker] = self._watched

    def heard(self, worker: int) -> None:
        """Note that what was asked for has come."""
        since, self._since[worker] = self._since[worker], None
        if since is not None:
            self._longest[worker] = max(self._watched - since, self._longest[worker] or 0.0)

    def forget(self, worker: int) -> None:
        """Wait for a worker no longer; how long it took says nothing about its steps."""
        self._since[worker] = None

    def renew(self, worker: int) -> None:
        """Know nothing of a worker's steps any more, since another process computes them now."""
        self._since[worker] = self._longest[worker] = None

    def hurry(self) -> None:
        """Have less patience from now on, since the run is to stop."""
        self._stopping = True

    def look(self) -> Sequence[int]:
        """Let time pass; return who has been silent for too long, every tenth of a second."""
        now = self._clock()
        # A look that comes late was not late by the workers' fault.
        self._watched += min(now - self._last, _LONGEST_LOOK_S)
        self._last = now
        if self._watched < self._next:
            return []
        self._next = self._watched + _LOOK_EVERY_S
        return [
            worker
            for worker, since in enumerate(self._since)
            if since is not None and self._watched - since >= self.patience_s(worker)
        ]

    def look_again(self, worker: int) -> bool:
        """Return whether a worker that was silent for too long still is."""
        return self.silent_s(worker) >= self.patience_s(worker)

    def silent_s(self, worker: int) -> float:
        """Seconds since the worker was asked, or 0 if it was not."""
        since = self._since[worker]
        return 0.0 if since is None else self._watched - since

    def patience_s(self, worker: int) -> float:
        """Seconds that the worker may be silent for."""
        longest, wanted = self._longest[worker], self._settings.patience
        if wanted == "never":
            patience = math.inf
        elif wanted != "auto":
            patience = wanted
        elif longest is None:
            patience = FIRST_S
        else:
            patience = max(FLOOR_S, STEPS * longest)
        if self._stopping:
            patience = min(patience, max(STOP_FLOOR_S, STOP_STEPS * (longest or 0.0)))
        return patience
