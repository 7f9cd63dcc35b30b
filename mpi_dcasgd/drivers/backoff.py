"""Waiting for MPI without burning a core that another process on the host could use."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

SPIN_S = 1e-3
"""Seconds that a wait polls without sleeping if every rank of the host has its own core."""
CROWDED_SPIN_S = 50e-6
"""The same if ranks share cores: about as long as the shortest sleep takes anyway."""
FRACTION = 0.1
"""Length of a pause in proportion to the time waited so far; the wait is late by at most that."""
LONGEST_S = 1e-3
"""Longest pause, since a message beyond MPI's eager limit moves only while someone polls."""


def spin_s(ranks_on_host: int) -> float:
    """Return the seconds that a wait should poll without sleeping.

    Args:
        ranks_on_host: Number of ranks that share the host's cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return SPIN_S if ranks_on_host <= (cores or 1) else CROWDED_SPIN_S


class Backoff:
    """Pauses between polls: none at first, then a fraction of the time waited so far.

    Args:
        spin_s: Seconds of polling before the first pause.
        clock: Seconds, monotonic.
        sleep: Pauses for so many seconds; 0 yields the core.
    """

    def __init__(
        self,
        spin_s: float = CROWDED_SPIN_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._spin_s = spin_s
        self._clock = clock
        self._sleep = sleep
        self._since: float | None = None

    def reset(self) -> None:
        """Poll eagerly again, since something arrived."""
        self._since = None

    def pause(self) -> bool:
        """Yield the core, for longer each time, since nothing arrived.

        Returns:
            Whether this was more than a poll.
        """
        now = self._clock()
        if self._since is None:
            self._since = now
        waited = now - self._since
        polls = waited < self._spin_s
        self._sleep(0.0 if polls else min(FRACTION * waited, LONGEST_S))
        return not polls


def wait_until(done: Callable[[], bool], spin_s: float = CROWDED_SPIN_S) -> None:
    """Poll ``done`` with growing pauses until it returns true."""
    backoff = Backoff(spin_s)
    while not done():
        backoff.pause()
