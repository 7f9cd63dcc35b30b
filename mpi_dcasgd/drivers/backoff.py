"""Waiting for MPI: at once while something is likely to come, and later without burning a core.

MPI's own wait is the fastest, but it sees no signal, no clock and no death until a message comes. A
bare loop of ``Test`` is as fast, since each call is little more than a look at MPI's queues, and it
lets other threads of the process have their turn. What costs time is what a loop does beside: a
function, a clock, and above all a ``sleep(0)``, which lasts 50 microseconds. So a wait polls in
bursts with nothing in between; after each it looks at the clock and gives way to whoever else wants
the core. It sleeps only when it has waited for long.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

SPIN_S = 1e-3
"""Seconds that a wait polls without sleeping if every rank of the host has its own core."""
CROWDED_SPIN_S = 50e-6
"""The same if ranks share cores: about as long as the shortest sleep takes anyway."""
BURST = 32
"""Polls one after the other while a wait does not sleep, which take about 10 microseconds."""
NAPS = 4
"""Polls with the same pause between them once it sleeps; after each a process sees to its other
duties, which costs as much as a poll."""
FRACTION = 0.1
"""Length of a pause in proportion to the time waited so far; the wait is late by at most that."""
LONGEST_S = 200e-6
"""Longest pause where a rank has its own core. With what the system adds it is a quarter of a
millisecond, and waking up to poll takes some ten microseconds."""
IDLE_AFTER_S = 0.1
"""Seconds without anything after which such a rank takes itself for idle."""
IDLE_LONGEST_S = 300e-6
"""Longest pause from then on: what comes in the middle of one is still there within 200 us."""
CROWDED_LONGEST_S = 1e-3
"""The same if ranks share cores; a message beyond MPI's eager limit moves only while one polls."""

T = TypeVar("T")

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def spin_s(ranks_on_host: int, cores: float) -> float:
    """Return the seconds that a wait should poll without sleeping.

    Args:
        ranks_on_host: Number of ranks that share the host's cores.
        cores: Number of those that they may use.
    """
    return SPIN_S if ranks_on_host <= cores else CROWDED_SPIN_S


def usable_cores(quota: Path = _QUOTA) -> tuple[frozenset[int], float]:
    """Return the cores that this process may run on, and the number that its container is granted.

    Args:
        quota: The kernel's file with the container's share: microseconds of so many, or ``max``.

    Returns:
        Their numbers, and infinity where there is no limit.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = frozenset(os.sched_getaffinity(0))
    else:
        cores = frozenset(range(os.cpu_count() or 1))
    try:
        share, period = quota.read_text(encoding="ascii").split()
        return cores, int(share) / int(period)
    except (OSError, ValueError):  # no container, another kind, or no limit
        return cores, math.inf


def _give_way() -> None:
    """Let another process have the core, if one wants it."""
    if hasattr(os, "sched_yield"):
        os.sched_yield()
    else:
        time.sleep(0.0)


class Backoff:
    """Pauses between polls: none at first, then a fraction of the time waited so far.

    Args:
        spin_s: Seconds of polling before the first pause.
        clock: Seconds, monotonic.
        sleep: Pauses for so many seconds.
        give_way: Yields the core without a pause.

    Example:
        >>> backoff, answers = Backoff(), iter([0, 0, 3])
        >>> backoff.attempt(lambda: next(answers))
        3
    """

    def __init__(
        self,
        spin_s: float = CROWDED_SPIN_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        give_way: Callable[[], None] = _give_way,
    ) -> None:
        self._spin_s = spin_s
        self._crowded = spin_s < SPIN_S
        self._clock = clock
        self._sleep = sleep
        self._give_way = give_way
        self.reset()

    def reset(self) -> None:
        """Poll eagerly again, since something arrived."""
        self._since: float | None = None
        self._polls = BURST
        self._pause_s = 0.0

    def attempt(self, poll: Callable[[], T]) -> T:
        """Poll a few times, until there is something; return what was found last.

        Call ``pause`` after it if that was nothing.

        Args:
            poll: Returns something true if it found something.
        """
        found = poll()
        for _ in range(self._polls - 1):
            if found:
                break
            if self._pause_s:
                self._sleep(self._pause_s)
            found = poll()
        return found

    def pause(self) -> bool:
        """Yield the core, for longer each time, since nothing arrived.

        Returns:
            Whether this was more than a poll.
        """
        now = self._clock()
        if self._since is None:
            self._since = now
        waited = now - self._since
        if waited < self._spin_s:
            self._give_way()
            return False
        self._polls = NAPS
        self._pause_s = min(FRACTION * waited, self._longest_s(waited))
        self._sleep(self._pause_s)
        return True

    def _longest_s(self, waited_s: float) -> float:
        if self._crowded:
            return CROWDED_LONGEST_S
        return LONGEST_S if waited_s < IDLE_AFTER_S else IDLE_LONGEST_S


def wait_until(done: Callable[[], bool], spin_s: float = CROWDED_SPIN_S) -> None:
    """Poll ``done`` with growing pauses until it returns true."""
    backoff = Backoff(spin_s)
    while not backoff.attempt(done):
        backoff.pause()
