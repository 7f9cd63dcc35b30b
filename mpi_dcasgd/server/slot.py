"""State of each worker at the server, and the counts over a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from mpi_dcasgd.errors import ProtocolError
from mpi_dcasgd.server.message import Kind, Message
from mpi_dcasgd.server.state import saved


@dataclass
class Slot:
    """One worker, as the server sees it.

    Attributes:
        message: The reply it is sent; its vector is the worker's snapshot.
        version: Version of the weights it was sent last.
        status: ``parked`` workers wait for a reply until there is something for them to do.
        clock: Number of gradients it has delivered.
    """

    message: Message
    version: int = -1
    status: Literal["absent", "working", "parked", "stopped", "lost"] = "absent"
    clock: int = 0

    @property
    def snapshot(self) -> Tensor:
        """The weights that the worker was sent last, shape (size,)."""
        return self.message.vector

    def move(self, vector: Tensor) -> None:
        """Have replies and snapshot in memory that the worker has, too; values are not kept.

        Args:
            vector: The memory, shape (size,), on the CPU.

        Raises:
            ProtocolError: The worker was sent weights, which are its snapshot.
        """
        self.carry(Message(vector.numel(), shared=vector))

    def carry(self, message: Message) -> None:
        """Send replies in another message from now on; values are not kept.

        Args:
            message: Its vector is the snapshot, shape (size,).

        Raises:
            ProtocolError: The worker was sent weights, which are its snapshot.
        """
        if self.status not in ("absent", "lost"):
            raise ProtocolError(f"the vector of a worker that is {self.status} cannot be moved")
        self.message = message

    def state_dict(self) -> dict[str, Any]:
        """Return the slot in plain values; the snapshot is a copy on the CPU."""
        told = self.status not in ("absent", "parked", "lost")
        return {
            "snapshot": saved(self.snapshot),
            "version": self.version,
            "status": self.status,
            "clock": self.clock,
            "tickets": list(self.message.tickets) if told else [],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become the slot that ``state_dict`` was taken of, the reply it was sent included."""
        self.snapshot.copy_(state["snapshot"])
        self.version = state["version"]
        self.status = state["status"]
        self.clock = state["clock"]
        kind = Kind.STOP if self.status == "stopped" else Kind.WORK
        self.message.write_reply(kind, self.version, state["tickets"])


@dataclass
class Tally:
    """Counts over a run; staleness only of the gradients that were applied."""

    applied: int = 0
    dropped: int = 0
    nonfinite: int = 0
    given_up: int = 0
    staleness: Counter[int] = field(default_factory=Counter)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts in plain values."""
        return {**vars(self), "staleness": dict(self.staleness)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        for name, value in state.items():
            setattr(self, name, Counter(value) if name == "staleness" else value)
