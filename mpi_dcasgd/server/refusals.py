"""Gradients that are not finite: how often a ticket is retried, and when the run ends."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mpi_dcasgd.errors import NonFiniteError
from mpi_dcasgd.server.push import Push

MAX_ATTEMPTS = 3
"""Non-finite gradients of one ticket after which it is given up."""


class Refusals:
    """Count of refused gradients, by ticket and in a row.

    Args:
        num_workers: Number of workers. All of them may hold weights of the same bad moment, so
            more refusals in a row are tolerated with more workers.
        whose: Name of the weights that are looked at.
    """

    def __init__(self, num_workers: int, whose: str = "all weights") -> None:
        self._whose = whose
        self._limit = 3 * num_workers + 7
        self._attempts: Counter[int] = Counter()
        self._in_a_row = 0

    def reset(self) -> None:
        """Note a finite gradient: those before it are no longer in a row with those after it."""
        self._in_a_row = 0

    def refuse(self, worker: int, push: Push, weights: Tensor, num_params: int) -> bool:
        """Count a non-finite gradient.

        Args:
            worker: Who delivered it.
            push: The gradient.
            weights: What it was computed at, with BatchNorm's statistics behind.
            num_params: Elements before those.

        Returns:
            Whether its ticket may be retried; if not, it is to be given up.

        Raises:
            NonFiniteError: Too many gradients in a row were not finite.
        """
        self._in_a_row += 1
        self._attempts[push.ticket] += 1
        if self._in_a_row >= self._limit:
            last = f"last: worker {worker}, ticket {push.ticket}, version {push.version}"
            raise NonFiniteError(
                f"{self._limit} gradients in a row were NaN or infinite ({last}); none of them "
                f"was applied. {_cause(push, weights, num_params, self._whose)}"
            )
        return self._attempts[push.ticket] < MAX_ATTEMPTS

    def state_dict(self) -> dict[str, Any]:
        """Return the counts in plain values."""
        return {"attempts": dict(self._attempts), "nonfinite_in_a_row": self._in_a_row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``; further keys are ignored."""
        self._attempts = Counter(state["attempts"])
        self._in_a_row = state["nonfinite_in_a_row"]


def _cause(push: Push, weights: Tensor, num_params: int, whose: str) -> str:
    """Tell what was seen of the last gradient, and what to look at."""
    loss = push.loss
    if not torch.isfinite(weights).all():
        return "The weights are not finite either: training diverged; lower lr, or clip gradients."
    if math.isfinite(loss):
        what = "BatchNorm's statistics are" if math.isfinite(push.grad_norm) else "its gradient is"
        seen = f"The loss of that minibatch is {loss:.4g}, and {what} not finite"
        look = "divisions, roots and norms at zero in the model and the loss"
    else:
        seen = f"The loss of that minibatch is {loss}"
        look = (
            "NaN or infinite values in its samples, and for logarithms and divisions of zero in "
            "the model and the loss"
        )
    largest = float(weights[:num_params].abs().max()) if num_params else 0.0
    return (
        f"{seen}, while {whose} are finite, the largest {largest:.3g}: look for {look}; if the "
        "weights have grown, lower lr, or clip gradients."
    )
