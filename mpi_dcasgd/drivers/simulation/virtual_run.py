"""The shape of a run of one process in seconds that are not a clock's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.server.records import UpdateRecord


class VirtualRun(Protocol):
    """A simulated run, or one in a recorded order.

    Attributes:
        told: Called with the record of every push, in the middle of it.
    """

    told: Callable[[UpdateRecord], None]

    @property
    def time_s(self) -> float:
        """Virtual seconds since the start: the clock for a ``Conductor``."""

    @property
    def done(self) -> bool:
        """Whether the run has come to its end."""

    def run(self, pushes: int | None = None) -> None:
        """Go on to the end, or for so many pushes."""

    def accounts(self) -> Sequence[Account]:
        """Return where each worker's virtual time went."""

    def state_dict(self) -> dict[str, Any]:
        """Complete state to resume from, the server included, in plain values and tensors."""

    def load_state_dict(self, saved: Mapping[str, Any], /) -> None:
        """Go on where ``state_dict`` was taken, bit for bit."""
