"""Result of computing a recorded run again: whether it is the same, and where it is not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mpi_dcasgd.drivers.simulation.recorded_order import Difference
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.trace import TraceRecord
from mpi_dcasgd.wording import counted

Verdict = Literal["identical", "different", "cut"]


@dataclass(frozen=True)
class Replay:
    """Result of computing a run again.

    Attributes:
        verdict: ``identical``; ``different``; or ``cut``, if all gradients are the same as far as
            the trace goes, but the run came to its end and its trace does not.
        path: The run's folder.
        pushes: The pushes in the trace.
        updates: Updates that were made again.
        seconds: How long that took.
        difference: The first push that differs, if one does.
        push: That push as it was recorded.
        weights_sha256: Name of the weights that were computed, up to the difference if there is
            one.
        recorded_sha256: Name of the run's final weights; empty if it was killed, so that there are
            none to compare.
        code_changes: The modules of the user's own that are not what the run was made with, a line
            each.
        data_changes: What of the data is not what the run was made with, a line each.
        damage: What is wrong with the run's file of final weights; empty if nothing is.

    Example:
        Whether a run can be repeated::

            result = replay("runs/digits-asgd-20240506-070809")
            assert result.identical, str(result)
    """

    verdict: Verdict
    path: Path
    pushes: int
    updates: int
    seconds: float
    difference: Difference | None
    push: TraceRecord | None
    weights_sha256: str
    recorded_sha256: str
    code_changes: tuple[str, ...] = ()
    data_changes: tuple[str, ...] = ()
    damage: str = ""

    @property
    def identical(self) -> bool:
        """True if every gradient is the same, and the final weights if there are any."""
        return self.verdict == "identical"

    def __bool__(self) -> bool:
        return self.identical

    def __str__(self) -> str:
        notes = [*self.code_changes, *self.data_changes, *filter(None, [self.damage])]
        return "\n".join([self._verdict(), *notes])

    def _verdict(self) -> str:
        if self.difference is not None and self.push is not None:
            at = self.push
            return (
                f"DIFFERENT from {self.difference} (worker {at.worker}, ticket {at.ticket}, "
                f"version {at.version})"
            )
        if self.verdict == "cut":
            return (
                f"CUT: every gradient is the same as far as the trace goes, "
                f"{counted(self.pushes, 'push')}, but the run came to its end and its "
                f"trace does not: {RunFolder(self.path).trace_bin} is not whole; copy it again"
            )
        if self.verdict == "different":
            return (
                f"DIFFERENT: every gradient is the same, but the final weights are "
                f"{self.weights_sha256[:16]} ...\n"
                f"           where the run's are {self.recorded_sha256[:16]} ..."
            )
        counts = f"{counted(self.pushes, 'push')}, {counted(self.updates, 'update')}"
        made = f"{counts} in {self.seconds:.1f} s"
        if not self.recorded_sha256:
            return (
                f"identical as far as the trace goes: {made}; the run did not come to its end, so "
                "there are no final weights to compare"
            )
        return f"identical: {made}, final weights {self.weights_sha256[:16]} ..."
