"""Timing and content of checkpoints; files are left to ``record.checkpoints``."""

from __future__ import annotations

import time
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
        """Return the last failure, once; else an empty string."""

    @property
    def hangs(self) -> str:
        """Name of what hangs, in a few words; empty if nothing does."""

    def finish(self) -> bool:
        """Wait until nothing is being written; return whether that is so, or it hangs."""


class Checkpointer:
    """Takes a run's state at the points that the job names.

    It is called between two pushes, when the server's books agree: a state is complete at any of
    these points, and is a copy, so that training continues while it is written.

    Args:
        server: Of the run.
        parts: The parts of the state, each by what returns it in plain values.
        keeper: Who keeps it.
        every_samples: Training samples from one state to the next, or None.
        every_s: Seconds from one state to the next, or None. They are seconds that somebody
            waits, in a simulation, too: its own cost nobody anything.
        constant: Values that belong to every state.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        server: ParameterServer,
        parts: Mapping[str, Callable[[], Any]],
        keeper: Keeper,
        every_samples: int | None,
        every_s: float | None,
        constant: Mapping[str, Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._parts = dict(parts)
        self._keeper = keeper
        self._every_samples = every_samples
        self._every_s = every_s
        self._constant = dict(constant)
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """Count from now on: training begins or resumes, or a state has been taken."""
        self._taken_at_s = self._clock()
        self._taken_samples = self._server.samples

    def look(self) -> None:
        """Take the state if it is time to."""
        samples, stride = self._server.samples, self._every_samples
        due = stride is not None and samples // stride > self._taken_samples // stride
        if self._every_s is not None and self._clock() - self._taken_at_s >= self._every_s:
            due = True
        if due:
            self.take()

    def take(self) -> None:
        """Take the state in the background, unless the one before is still being written."""
        if self._keeper.keep(self._server.version, self._state()):
            self.begin()

    def complaint(self) -> str:
        """Return the last failure to keep a state, once; else an empty string."""
        return self._keeper.complaint()

    @property
    def hangs(self) -> str:
        """Obstacle to keeping states, in a few words; empty if there is none."""
        return self._keeper.hangs

    def last(self) -> None:
        """Take the state at which a run is left, and wait until it is kept, or hangs."""
        self._keeper.keep_now(self._server.version, self._state())

    def finish(self) -> None:
        """End after the run's own end; take no more checkpoints."""
        self._keeper.finish()

    def _state(self) -> dict[str, Any]:
        parts = {name: state() for name, state in self._parts.items()}
        return {**self._constant, **parts}
