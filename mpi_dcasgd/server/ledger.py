"""Ledger of tickets: which are waiting, which are held and by whom, which are done."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from mpi_dcasgd.errors import ProtocolError


class TicketLedger:
    """Hand out every ticket of a run in order, and keep track of each.

    A ticket is granted, and then either completed, handed back (its gradient was refused, or its
    worker died) or given up (it was handed back too often). Handed-back tickets go out again
    before any new one; one that was dropped goes to another worker, unless nothing else is left.

    Args:
        num_tickets: Tickets ``0 .. num_tickets - 1`` exist.
        num_workers: Workers ``0 .. num_workers - 1`` exist.
    """

    def __init__(self, num_tickets: int, num_workers: int) -> None:
        self.num_tickets = num_tickets
        self._next = 0
        self._returned: deque[int] = deque()
        self._dropped_by: dict[int, int] = {}  # of the returned: whose gradient came too late
        self._held: list[deque[int]] = [deque() for _ in range(num_workers)]
        self._closed = 0

    @property
    def done(self) -> bool:
        """True if every ticket has been completed or given up."""
        return self._closed == self.num_tickets

    @property
    def available(self) -> int:
        """Number of tickets that can be granted now."""
        return len(self._returned) + self.num_tickets - self._next

    def held(self, worker: int) -> tuple[int, ...]:
        """Return the tickets granted to the worker and not delivered yet, oldest first."""
        return tuple(self._held[worker])

    def grant(self, worker: int) -> int | None:
        """Give the worker the next ticket; return it, or None if none is available."""
        others = (t for t in self._returned if self._dropped_by.get(t) != worker)
        ticket = next(others, None)
        if ticket is None and self._next < self.num_tickets:
            ticket = self._next
            self._next += 1
        elif ticket is None and not self._returned:
            return None
        else:
            ticket = self._returned[0] if ticket is None else ticket
            self._returned.remove(ticket)
            self._dropped_by.pop(ticket, None)
        self._held[worker].append(ticket)
        return ticket

    def complete(self, worker: int, ticket: int) -> None:
        """Close a ticket whose gradient was accepted, or which is given up for good."""
        self._take(worker, ticket)
        self._closed += 1

    def hand_back(self, worker: int, ticket: int) -> None:
        """Requeue a ticket, to be computed again by any worker."""
        self._take(worker, ticket)
        self._returned.append(ticket)

    def drop(self, worker: int, ticket: int) -> None:
        """Requeue a ticket whose gradient came too late, for others first.

        The worker that was too slow for it would be so again, and an early minibatch would be
        applied at the end of the run.
        """
        self.hand_back(worker, ticket)
        self._dropped_by[ticket] = worker

    def reclaim(self, worker: int) -> tuple[int, ...]:
        """Requeue all tickets of a lost worker; return them, oldest first."""
        lost = self.held(worker)
        for ticket in lost:
            self.hand_back(worker, ticket)
        return lost

    def state_dict(self) -> dict[str, Any]:
        """Return the place of every ticket in plain values."""
        return {
            "num_tickets": self.num_tickets,
            "next": self._next,
            "returned": list(self._returned),
            **({"dropped_by": dict(self._dropped_by)} if self._dropped_by else {}),
            "held": [list(tickets) for tickets in self._held],
            "closed": self._closed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``, with the same workers holding the same tickets."""
        self._load(state)
        self._dropped_by = dict(state.get("dropped_by", {}))  # missing in older checkpoints
        self._held = [deque(tickets) for tickets in state["held"]]

    def lasting_state(self) -> dict[str, Any]:
        """Return the state without the workers: the tickets they hold are to be granted again."""
        out = [ticket for tickets in self._held for ticket in tickets]
        if len(self._held) > 1:  # a single worker resumes in the order in which it holds them
            out.sort()
        state = self.state_dict()
        for key in ("held", "dropped_by"):  # both are about workers that are no more
            state.pop(key, None)
        return {**state, "returned": out + state["returned"]}

    def take_over(self, state: Mapping[str, Any]) -> None:
        """Resume from ``lasting_state``, with any number of workers, none of them holding any."""
        self._load(state)
        self._dropped_by.clear()
        for held in self._held:
            held.clear()

    def _load(self, state: Mapping[str, Any]) -> None:
        self._next = state["next"]
        self._returned = deque(state["returned"])
        self._closed = state["closed"]

    def _take(self, worker: int, ticket: int) -> None:
        try:
            self._held[worker].remove(ticket)
        except ValueError:
            raise ProtocolError(
                f"worker {worker} delivered ticket {ticket}, but holds "
                f"{list(self._held[worker]) or 'none'}"
            ) from None
