"""Gradients that are not finite: how often a ticket is retried, and when training has diverged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from mpi_dcasgd.errors import NonFiniteError
from mpi_dcasgd.server.push import Push

MAX_ATTEMPTS = 3
"""Non-finite gradients of one ticket after which it is given up."""


class Refusals:
    """Count of refused gradients, by ticket and in a row.

    Args:
        num_workers: Number of workers. All of them may hold weights of the same bad moment, so
            more refusals in a row are tolerated with more workers.
    """

    def __init__(self, num_workers: int) -> None:
        self._limit = 3 * num_workers + 7
        self._attempts: Counter[int] = Counter()
        self._in_a_row = 0

    def reset(self) -> None:
        """Note a finite gradient: those before it are no longer in a row with those after it."""
        self._in_a_row = 0

    def refuse(self, worker: int, push: Push) -> bool:
        """Count a non-finite gradient.

        Returns:
            Whether its ticket may be retried; if not, it is to be given up.

        Raises:
            NonFiniteError: Too many gradients in a row were not finite.
        """
        self._in_a_row += 1
        self._attempts[push.ticket] += 1
        if self._in_a_row >= self._limit:
            raise NonFiniteError(
                f"training diverged: {self._limit} gradients in a row were NaN or infinite "
                f"(last: worker {worker}, ticket {push.ticket}, version {push.version}, "
                f"loss {push.loss}); none of them was applied. Lower lr, clip gradients or "
                "look for NaN in the data."
            )
        return self._attempts[push.ticket] < MAX_ATTEMPTS

    def state_dict(self) -> dict[str, Any]:
        """Return the counts in plain values."""
        return {"attempts": dict(self._attempts), "nonfinite_in_a_row": self._in_a_row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``; further keys are ignored."""
        self._attempts = Counter(state["attempts"])
        self._in_a_row = state["nonfinite_in_a_row"]
