"""Batches that are begun before their turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from mpi_dcasgd.learning.data.dataset import Split
from mpi_dcasgd.learning.loaders.split import LoadedSplit

T = TypeVar("T")

_LEAST = 16
"""Batches that may have been begun; more than a worker is ever granted ahead."""


class Lookahead(Generic[T]):
    """Tickets whose batches are being loaded, so many at once that memory stays bounded.

    Which tickets are expected, and in which order, changes how long is waited and nothing else.

    Args:
        begin: Begins to load a ticket, and returns a function that waits for it.
        at_once: Batches that are made at the same time.

    Example:
        >>> begun = []
        >>> ahead = Lookahead(lambda ticket: begun.append(ticket) or (lambda: 10 * ticket), 2)
        >>> ahead.expect([3, 4])
        >>> begun, ahead.take(4), ahead.take(7)
        ([3, 4], 40, 70)
    """

    def __init__(self, begin: Callable[[int], Callable[[], T]], at_once: int) -> None:
        self._begin = begin
        self._limit = max(_LEAST, 4 * at_once)
        self._begun: dict[int, Callable[[], T]] = {}
        self._due: dict[int, None] = {}  # a set that keeps its order

    def expect(self, tickets: Iterable[int]) -> None:
        """Note tickets that will be asked for, and begin as many as there is room for."""
        self._due.update((ticket, None) for ticket in tickets if ticket not in self._begun)
        self._fill()

    def take(self, ticket: int) -> T:
        """Return the batch of a ticket, expected or not, waiting for it if necessary."""
        self._due.pop(ticket, None)
        finish = self._begun.pop(ticket, None) or self._begin(ticket)
        self._fill()
        return finish()

    def _fill(self) -> None:
        while self._due and len(self._begun) < self._limit:
            ticket = next(iter(self._due))
            del self._due[ticket]
            self._begun[ticket] = self._begin(ticket)


def batches_of(split: Split, parts: Iterable[NDArray[np.int64]]) -> Iterator[Any]:
    """Yield batches without augmentation, the next ones being loaded where processes do that.

    Args:
        split: Any.
        parts: Sample numbers of each batch.
    """
    if not isinstance(split, LoadedSplit):
        for indices in parts:
            yield split.batch(indices, None)
        return
    begun: deque[Callable[[], list[Any]]] = deque()
    for indices in parts:
        begun.append(split.begin([indices], None))
        if len(begun) > split.at_once:
            yield begun.popleft()()[0]
    for wait in begun:
        yield wait()[0]
