"""Which tickets are waiting, which are out and with whom, which are done."""

from __future__ import annotations

from collections import deque

from mpi_dcasgd.errors import ProtocolError


class TicketLedger:
    """Hands out every ticket of a run in order and knows where each of them is.

    A ticket is granted, and then either completed, handed back (its gradient was refused, or its
    worker died) or given up (it was handed back too often). Handed-back tickets go out again
    before any new one.

    Args:
        num_tickets: Tickets ``0 .. num_tickets - 1`` exist.
        num_workers: Workers ``0 .. num_workers - 1`` exist.
    """

    def __init__(self, num_tickets: int, num_workers: int) -> None:
        self.num_tickets = num_tickets
        self._next = 0
        self._returned: deque[int] = deque()
        self._held: list[deque[int]] = [deque() for _ in range(num_workers)]
        self._closed = 0

    @property
    def done(self) -> bool:
        """Whether every ticket has been completed or given up."""
        return self._closed == self.num_tickets

    @property
    def available(self) -> int:
        """Tickets that nobody holds and nobody has finished."""
        return len(self._returned) + self.num_tickets - self._next

    def held(self, worker: int) -> tuple[int, ...]:
        """Tickets that the worker was granted and has not delivered, oldest first."""
        return tuple(self._held[worker])

    def grant(self, worker: int) -> int | None:
        """The next ticket, now held by the worker; None if none is left at present."""
        if self._returned:
            ticket = self._returned.popleft()
        elif self._next < self.num_tickets:
            ticket = self._next
            self._next += 1
        else:
            return None
        self._held[worker].append(ticket)
        return ticket

    def complete(self, worker: int, ticket: int) -> None:
        """The ticket's gradient was taken in, or the ticket is given up for good."""
        self._take(worker, ticket)
        self._closed += 1

    def hand_back(self, worker: int, ticket: int) -> None:
        """The ticket must be computed again, by anyone."""
        self._take(worker, ticket)
        self._returned.append(ticket)

    def reclaim(self, worker: int) -> tuple[int, ...]:
        """Take back all that a lost worker held; the tickets, oldest first."""
        lost = self.held(worker)
        for ticket in lost:
            self.hand_back(worker, ticket)
        return lost

    def _take(self, worker: int, ticket: int) -> None:
        try:
            self._held[worker].remove(ticket)
        except ValueError:
            raise ProtocolError(
                f"worker {worker} delivered ticket {ticket}, but holds "
                f"{list(self._held[worker]) or 'none'}"
            ) from None
