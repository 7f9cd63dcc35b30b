"""Messages that leave one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpi4py import MPI


class Stream:
    """Persistent sends in the order in which they are added, one at a time.

    Of two at a time an MPI library sends pieces in turns, and both arrive when the second does: the
    first could not be worked on meanwhile. What the one costs, that it is agreed upon while nothing
    else is under way, is little beside chunks of megabytes (docs/performance.md).

    They move only when somebody calls ``move``.
    """

    def __init__(self) -> None:
        self._waiting: deque[MPI.Prequest] = deque()
        self._away: MPI.Prequest | None = None

    def add(self, sends: Iterable[MPI.Prequest]) -> None:
        """Have more messages sent, as soon as it is their turn; each may come again."""
        self._waiting.extend(sends)
        self.move()

    def move(self) -> bool:
        """Send what can be sent; return whether everything is out of its memory."""
        while self._away is None or self._away.Test():
            self._away = self._waiting.popleft() if self._waiting else None
            if self._away is None:
                return True
            self._away.Start()
        return False

    def clear(self) -> None:
        """Forget what is still to be sent, to somebody who is gone."""
        self._waiting.clear()
        self._away = None
