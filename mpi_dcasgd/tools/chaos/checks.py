"""Checks of a run's folder after its starts: every ticket applied once, and every file whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.checkpoints import checkpoints_in, read_checkpoint
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.trace import Trace
from mpi_dcasgd.server.records import Action
from mpi_dcasgd.wording import counted

_COLUMNS = ("worker", "ticket", "version", "staleness", "action", "mark")
_SHOWN = 5


@dataclass(frozen=True)
class Failure:
    """Something that must not be.

    Attributes:
        sort: ``lost``, ``twice``, ``hang``, ``replay``, ``left``, ``files``, ``status`` or
            ``unnamed``.
        text: What it is.
    """

    sort: str
    text: str

    def __str__(self) -> str:
        return f"{self.sort}: {self.text}"


def check_tickets(trace: Trace, *, total: int, complete: bool) -> list[Failure]:
    """Find tickets that were applied twice, and those of a complete run that never were.

    Args:
        trace: Of all starts; what a resume cut off is not in it.
        total: Tickets of the run.
        complete: Whether the run came to its end.
    """
    entered = np.isin(trace.action, (Action.APPLIED, Action.HELD))
    counts = Counter(trace.ticket[entered].tolist())
    found = []
    twice = sorted(ticket for ticket, times in counts.items() if times > 1)
    if twice:
        found.append(Failure("twice", f"applied more than once: tickets {_some(twice)}"))
    strange = sorted(ticket for ticket in counts if not 0 <= ticket < total)
    if strange:
        found.append(Failure("twice", f"applied, but not of this run: tickets {_some(strange)}"))
    if complete:
        refused = set(trace.ticket[trace.action == Action.NONFINITE].tolist())  # and given up
        missing = sorted(set(range(total)) - counts.keys() - refused)
        if missing:
            found.append(Failure("lost", f"never applied: tickets {_some(missing)} of {total}"))
    return found


def check_summary(trace: Trace, summary: dict[str, Any]) -> list[Failure]:
    """Check that the numbers of a complete run add up."""
    found = []
    samples = int(trace.meta["epochs"]) * int(trace.meta["num_samples"])
    if summary.get("samples") != samples:
        text = f"the summary tells of {summary.get('samples')} samples, not of {samples}"
        found.append(Failure("lost", text))
    if summary.get("updates") != trace.updates:
        text = f"{summary.get('updates')} updates in the summary, {trace.updates} in the trace"
        found.append(Failure("files", text))
    if trace.truncated or trace.status != "completed":
        found.append(Failure("files", f"the trace of a complete run ends with {trace.status}"))
    return found


def check_continued(before: Trace | None, after: Trace, *, resumable: bool) -> list[Failure]:
    """Check that a start went on with what the one before had recorded, and changed none of it.

    Args:
        before: The trace when this start began; None if there was none.
        after: The trace when it ended.
        resumable: Whether there was a whole checkpoint when it began.
    """
    if before is None or (len(before) == len(after) and _begins_with(after, before, len(before))):
        return []
    if after.restarts:
        shared = after.restarts[-1].records
        if _begins_with(after, before, shared):
            return []
        text = f"the first {counted(shared, 'push')} are not those of the start before"
        return [Failure("lost", text)]
    if not resumable:
        return []
    return [Failure("lost", "began anew, although there was a whole checkpoint")]


def check_repeated(folder: RunFolder, reference: RunFolder) -> list[Failure]:
    """Check that a complete run of a synchronous job did what the same run does without faults.

    Args:
        folder: Of the run.
        reference: Of a run of the same job, with as many ranks, that nothing struck.
    """
    trace, other = folder.trace(), reference.trace()
    if len(trace) != len(other):
        return [Failure("replay", f"{counted(len(trace), 'update')} in place of {len(other)}")]
    apart = np.flatnonzero(trace.mark != other.mark)
    if len(apart):
        text = f"from ticket {apart[0]} on, gradients are not those of a run without faults"
        return [Failure("replay", text)]
    names = [each.summary().get("weights_sha256") for each in (folder, reference)]
    if names[0] != names[1]:
        return [Failure("replay", "the final weights are not those of a run without faults")]
    return []


def check_files(folder: RunFolder) -> list[Failure]:
    """Check that all checkpoints and weights are what was written."""
    found = []
    for path in checkpoints_in(folder.checkpoints):
        try:
            read_checkpoint(path)
        except RunFolderError as error:
            found.append(Failure("files", str(error)))
    for best in (False, True):
        path = folder.best_pt if best else folder.weights_pt
        if path.exists():
            try:
                folder.weights(best=best)
            except RunFolderError as error:
                found.append(Failure("files", str(error)))
    return found


def check_leftovers(folder: RunFolder) -> list[Failure]:
    """Find files that a complete run has left half-written."""
    half = sorted(path.relative_to(folder.path) for path in folder.path.rglob("*.tmp"))
    return [Failure("files", f"half-written files are left: {_some(half)}")] if half else []


def whole_checkpoint(folder: RunFolder) -> Path | None:
    """The newest checkpoint that can be read, if there is one."""
    for path in checkpoints_in(folder.checkpoints):
        try:
            read_checkpoint(path)
        except RunFolderError:
            continue
        return path
    return None


def _begins_with(one: Trace, other: Trace, records: int) -> bool:
    if min(len(one), len(other)) < records:
        return False
    return all(
        np.array_equal(getattr(one, name)[:records], getattr(other, name)[:records])
        for name in _COLUMNS
    )


def _some(values: Sequence[object]) -> str:
    shown = ", ".join(map(str, values[:_SHOWN]))
    return shown + (f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else "")
