"""What the server keeps for each worker, and what it counts over a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from mpi_dcasgd.server.message import Message


@dataclass
class Slot:
    """What the server keeps for one worker.

    Attributes:
        message: What it is sent; its vector is the worker's snapshot.
        version: Of the weights that it was sent last.
        status: ``parked`` workers wait for a reply until there is something for them to do.
        clock: Gradients that it has delivered.
    """

    message: Message
    version: int = -1
    status: Literal["absent", "working", "parked", "stopped", "lost"] = "absent"
    clock: int = 0

    @property
    def snapshot(self) -> Tensor:
        """The weights that the worker was sent last, shape (size,)."""
        return self.message.vector


@dataclass
class Tally:
    """Counts over a run; staleness only of the gradients that were applied."""

    applied: int = 0
    dropped: int = 0
    nonfinite: int = 0
    given_up: int = 0
    staleness: Counter[int] = field(default_factory=Counter)
