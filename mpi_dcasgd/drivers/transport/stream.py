"""Messages that leave one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpi4py import MPI

AT_ONCE = 2
"""Messages under way at a time. One keeps the wire busy while the next is agreed upon; of many, an
MPI library would send pieces in turns, and all of them would arrive when the last does."""


class Stream:
    """Persistent sends in the order in which they are added, a few of them at a time.

    They move only when somebody calls ``move``.
    """

    def __init__(self) -> None:
        self._waiting: deque[MPI.Prequest] = deque()
        self._away: deque[MPI.Prequest] = deque()

    def add(self, sends: Iterable[MPI.Prequest]) -> None:
        """Have more messages sent, as soon as it is their turn; each may come again."""
        self._waiting.extend(sends)
        self.move()

    def move(self) -> bool:
        """Send what can be sent; return whether everything is out of its memory."""
        while True:
            while self._away and self._away[0].Test():
                self._away.popleft()
            if not self._waiting or len(self._away) == AT_ONCE:
                return not self._away
            self._waiting[0].Start()
            self._away.append(self._waiting.popleft())

    def clear(self) -> None:
        """Forget what is still to be sent, to somebody who is gone."""
        self._waiting.clear()
        self._away.clear()
