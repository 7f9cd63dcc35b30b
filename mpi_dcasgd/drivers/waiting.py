"""Waiting for MPI without burning a core that somebody else on the host could use."""

from __future__ import annotations

import time
from collections.abc import Callable

SPIN_S = 50e-6
"""For this long a wait polls without sleeping: a sleep takes about that long at the least."""
LONGEST_S = 1e-3
"""Pauses grow up to this; a message larger than MPI's eager limit moves only while polled."""


class Backoff:
    """Pauses between polls that grow while nothing happens.

    Args:
        clock: Seconds, monotonic.
        sleep: How to pause.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._since: float | None = None
        self._pause = 0.0

    def reset(self) -> None:
        """Something arrived: poll eagerly again."""
        self._since = None

    def pause(self) -> None:
        """Nothing arrived: give way, longer each time."""
        now = self._clock()
        if self._since is None:
            self._since = now
            self._pause = SPIN_S / 2
        if now - self._since < SPIN_S:
            return
        self._sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_S)


def wait_until(done: Callable[[], bool]) -> None:
    """Poll ``done`` with growing pauses until it says true."""
    backoff = Backoff()
    while not done():
        backoff.pause()
