"""Prefetching: the batches of granted tickets, loaded ahead of their turn where that pays."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from mpi_dcasgd.learning.learner import Batch, Learner


class Pipeline:
    """Batches of granted tickets, in the order of the grants.

    Args:
        learner: Loads the tickets.
        background: Load on a thread as soon as a ticket is granted, if the data can be loaded so;
            otherwise when it is its turn. Loader processes begin at once in any case.
    """

    def __init__(self, learner: Learner, *, background: bool) -> None:
        self._learner = learner
        self._pool: ThreadPoolExecutor | None = None
        if background and learner.loads_in_background:
            self._pool = ThreadPoolExecutor(1, "prefetch")
        self._waiting: deque[tuple[int, Future[Batch] | None]] = deque()

    def grant(self, tickets: Iterable[int]) -> None:
        """Queue tickets that the server granted, and begin to load them if in the background."""
        tickets = list(tickets)
        self._learner.expect(tickets)
        for ticket in tickets:
            future = self._pool.submit(self._learner.load, ticket) if self._pool else None
            self._waiting.append((ticket, future))

    def next(self) -> Batch:
        """Return the batch of the oldest ticket, waiting for it if necessary."""
        ticket, future = self._waiting.popleft()
        return self._learner.load(ticket) if future is None else future.result()

    def forget(self) -> None:
        """Drop all that was granted and not computed yet; it is loaded and thrown away."""
        while self._waiting:
            self.next()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)
