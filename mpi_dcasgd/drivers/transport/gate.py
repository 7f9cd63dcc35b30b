"""Pushes in chunks: how many come in at a time, whose turn it is, and which of them are overdue."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

STALL_S = 1.0
"""Seconds without a further chunk after which a push is overdue, at least."""
STALL_CHUNKS = 4.0
"""The same in proportion to the time that a chunk took so far."""

_WINDOW = 8  # pushes over which a rate is taken, at least
_ROUNDS = 2  # pushes of each worker over which it is taken, at least
_BETTER = 1.2  # what one more at a time has to bring
_AS_GOOD = 0.95  # what one less may cost
_LONGEST_REST = 64  # windows from one trial to the next, at most


class Influx:
    """Chunks of one push as they come in.

    Args:
        clock: Seconds, monotonic.

    Example:
        >>> seconds = iter([0.0, 3.0, 3.0])
        >>> influx = Influx(lambda: next(seconds))
        >>> influx.begin()
        >>> influx.add(2)
        >>> influx.chunk_s
        1.5
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._arrived = 0
        self._began_s = self._heard_s = 0.0

    def begin(self) -> None:
        """Begin with another push, of which no chunk is here."""
        self._arrived = 0
        self._began_s = self._heard_s = self._clock()

    def add(self, chunks: int) -> None:
        """Take note that so many more chunks are here."""
        self._arrived += chunks
        self._heard_s = self._clock()

    @property
    def chunk_s(self) -> float:
        """Mean seconds of a chunk so far; infinite before the first."""
        return (self._clock() - self._began_s) / self._arrived if self._arrived else math.inf

    @property
    def patience_s(self) -> float:
        """Seconds without a further chunk after which the push is overdue."""
        chunk_s = self.chunk_s
        return max(STALL_S, STALL_CHUNKS * chunk_s) if self._arrived else STALL_S

    @property
    def overdue(self) -> bool:
        """True if no chunk has come for that long."""
        return self._clock() - self._heard_s > self.patience_s


class Entrant(Protocol):
    """A push whose header is here."""

    inside: bool

    @property
    def flows(self) -> bool:
        """True if its chunks are coming in, and none is overdue."""

    def let_in(self) -> None:
        """Start to receive them."""


class Gate:
    """Number of pushes that a server has come in at a time, found out by trying.

    One at a time is the best where all links are equal: workers whose pushes come in together also
    wait for their replies together, and use one direction of the server's link after the other.
    Where a worker's link is slower than the server's, one push cannot fill it. So now and then one
    more is tried, or one less, and kept if pushes are then dealt with faster, or as fast.

    Args:
        num_workers: Number of workers, which is the most.

    Attributes:
        limit: The number now.

    Example:
        >>> gate = Gate(num_workers=4)
        >>> gate.limit
        1
    """

    def __init__(self, num_workers: int) -> None:
        self.limit = 1
        self._kept = 1
        self._most = num_workers
        self._window = max(_WINDOW, _ROUNDS * num_workers)
        self._count = -1  # the first push begins a window, and is not of it
        self._since_s = 0.0
        self._rate = 0.0
        self._rest = self._left = 1
        self._upwards = True

    def let_in(self, coming: Sequence[Entrant]) -> None:
        """Let pushes in as long as there is room.

        Args:
            coming: All whose header is here, and not all of the rest, in the order of the headers.
        """
        room = self.limit - sum(push.flows for push in coming)
        for push in coming:
            if room > 0 and not push.inside:
                push.let_in()
                room -= 1

    def passed(self, now_s: float) -> None:
        """Take note that a push has been dealt with.

        Args:
            now_s: Seconds, monotonic.
        """
        self._count += 1
        if not self._count:
            self._since_s = now_s
        elif self._count == self._window:
            spent_s, self._since_s, self._count = now_s - self._since_s, now_s, 0
            self._judge(self._window / max(spent_s, 1e-9))

    def _judge(self, rate: float) -> None:
        if self.limit == self._kept:
            self._rate = rate
            self._left -= 1
            if not self._left:
                self._try_another()
            return
        if rate > (_BETTER if self.limit > self._kept else _AS_GOOD) * self._rate:
            self._kept, self._rest = self.limit, 1
        else:
            self.limit, self._rest = self._kept, min(2 * self._rest, _LONGEST_REST)
        self._left = self._rest

    def _try_another(self) -> None:
        up, down = self._kept < self._most, self._kept > 1
        self._upwards = up and (self._upwards or not down)
        if self._upwards:
            self.limit = self._kept + 1
        elif down:
            self.limit = self._kept - 1
        self._upwards = not self._upwards
        self._left = self._rest
