"""When the state of a run is taken, and what belongs to it: no files here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from mpi_dcasgd.server.server import ParameterServer


class Keeper(Protocol):
    """Whoever keeps checkpoints (``record.checkpoints``)."""

    def keep(self, version: int, content: Mapping[str, Any]) -> bool:
        """Keep a state in the background; False where the one before is still being written."""

    def keep_now(self, version: int, content: Mapping[str, Any]) -> None:
        """Keep a state and return when it is kept, or there is a complaint."""

    def complaint(self) -> str:
        """What went wrong with the last one, told once; else an empty string."""

    def finish(self) -> None:
        """Wait until nothing is being written."""


class Checkpointer:
    """Takes a run's state at the points that the job names.

    It is called between two pushes, when the server's books agree: a state is complete at any of
    these points, and is a copy, so that training goes on while it is written.

    Args:
        server: Of the run.
        parts: Further parts of the state, each by what returns it in plain values.
        keeper: Who keeps it.
        every_samples: Training samples from one state to the next, or None.
        every_s: Seconds of training from one state to the next, or None.
        constant: Values that belong to every state.
    """

    def __init__(
        self,
        server: ParameterServer,
        parts: Mapping[str, Callable[[], Any]],
        keeper: Keeper,
        every_samples: int | None,
        every_s: float | None,
        constant: Mapping[str, Any],
    ) -> None:
        self._server = server
        self._parts = dict(parts)
        self._keeper = keeper
        self._every_samples = every_samples
        self._every_s = every_s
        self._constant = dict(constant)
        self._taken_at_s = 0.0
        self._taken_samples = server.samples

    def begin(self, time_s: float) -> None:
        """Training begins, or goes on, at this time."""
        self._taken_at_s = time_s
        self._taken_samples = self._server.samples

    def look(self, time_s: float) -> None:
        """Take the state if it is time to."""
        samples, stride = self._server.samples, self._every_samples
        due = stride is not None and samples // stride > self._taken_samples // stride
        if self._every_s is not None and time_s - self._taken_at_s >= self._every_s:
            due = True
        if due and self._keeper.keep(self._server.version, self._state()):
            self.begin(time_s)

    def complaint(self) -> str:
        """What went wrong in keeping a state, or an empty string; it is told once."""
        return self._keeper.complaint()

    def last(self) -> None:
        """Take the state at which a run is left, and wait until it is kept."""
        self._keeper.keep_now(self._server.version, self._state())

    def finish(self) -> None:
        """The run has come to its own end; nothing more is taken."""
        self._keeper.finish()

    def _state(self) -> dict[str, Any]:
        parts = {name: state() for name, state in self._parts.items()}
        return {**self._constant, "server": self._server.lasting_state(), **parts}
