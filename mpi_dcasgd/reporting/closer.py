"""What a report's section "Looking closer" is made of: staleness over time, and what was measured.

Staleness is in every trace. Gaps, compensations and steps are there where ``closeup`` was used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.closeup import Closeup
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.trace import Trace
from mpi_dcasgd.reporting.document import Block, Heading, Image, Paragraph, Table
from mpi_dcasgd.server.records import Action

if TYPE_CHECKING:
    from mpi_dcasgd.reporting.groups import Group

_POINTS = 60
"""Points of a line over time, at most."""
_EACH = 4
"""Pushes of a usual worker that are behind each of them, at least: or it is noise that is seen."""

NAME = "closer_"
"""Beginning of the names of this section's pictures."""

_BAND = (0.1, 0.9)

_STALENESS_NOTE = (
    "Staleness over time shows whether a run was steady: a worker that pauses leaves a gap and then"
    " a peak, one that lags a band that is far above the mean. W equal workers settle at W - 1."
)
_CLOSEUP_NOTE = (
    "The gap is the root mean square, over the parameters, of how far the server's weights were"
    " from those that a gradient was computed at. The effective lr is the norm of a step over that"
    " of its gradient; the compensation is what delay compensation added to the gradient, over the"
    " gradient's norm. Means over the pushes that were looked at."
)
_HINT = (
    "Gaps, compensations and effective steps of a run are measured by `mpi-dcasgd closeup RUN`,"
    " after which the report can be made again."
)

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Course:
    """Staleness of the gradients of one run that entered the weights.

    Attributes:
        times_s: Middle of each stretch of time, in seconds, shape (n,).
        mean, low, high: Mean, tenth and ninetieth hundredth in each; nan where none entered.
        workers: Worker to mean, tenth and ninetieth hundredth and the largest of its gradients.
    """

    times_s: Numbers
    mean: Numbers
    low: Numbers
    high: Numbers
    workers: Mapping[int, tuple[float, float, float, int]]


@dataclass(frozen=True, slots=True)
class Closer:
    """What is known of the pushes of one run.

    Attributes:
        course: Its staleness; None without a trace, and where nothing was stale.
        closeup: What ``closeup`` measured; None if it was not used.
        problem: Why that cannot be read; empty if it can.
    """

    course: Course | None = None
    closeup: Closeup | None = None
    problem: str = ""


def look_closer(folder: RunFolder, trace: Trace | None) -> Closer:
    """Read what there is of one run."""
    if trace is None:
        return Closer()
    course = course_of(trace)
    if not folder.closeup_jsonl.is_file():
        return Closer(course)
    try:
        return Closer(course, folder.closeup())
    except RunFolderError as error:
        return Closer(course, problem=str(error))


def course_of(trace: Trace) -> Course | None:
    """Follow the staleness of a run over time and by worker; None if nothing was stale."""
    entered = (trace.action == Action.APPLIED) | (trace.action == Action.HELD)
    staleness = trace.staleness[entered]
    if not staleness.any():
        return None
    times_s, workers = trace.time_us[entered] / 1e6, trace.worker[entered]
    edges = np.linspace(0.0, times_s[-1], points(len(workers), len(np.unique(workers))) + 1)
    bounds = np.searchsorted(times_s, edges[1:-1], side="right")
    spread = [_spread(part) for part in np.split(staleness, bounds)]
    mean, low, high = np.array(spread).T
    by_worker = {}
    for worker in np.unique(workers).tolist():
        mine = staleness[workers == worker]
        by_worker[worker] = (*_spread(mine), int(mine.max()))
    return Course((edges[1:] + edges[:-1]) / 2, mean, low, high, by_worker)


def points(pushes: int, workers: int) -> int:
    """Return into how many points a line over so many pushes is divided."""
    return max(1, min(_POINTS, pushes // (_EACH * workers)))


def _spread(values: NDArray[np.int64]) -> tuple[float, float, float]:
    if not len(values):
        return np.nan, np.nan, np.nan
    low, high = np.quantile(values, _BAND)
    return float(values.mean()), float(low), float(high)


def looked_at(group: Group) -> list[Closeup]:
    """Return what was measured of a group's runs."""
    return [run.closer.closeup for run in group.runs if run.closer.closeup is not None]


def mean_of(values: Numbers) -> float | None:
    """Return the mean of what is a number; None if nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def closer_blocks(groups: Sequence[Group], title: Heading, images: Sequence[Image]) -> list[Block]:
    """Write the section; empty if nothing is known of any run.

    Args:
        groups: The rows of the report.
        title: Heading of the section.
        images: Its pictures, in order.
    """
    if not any(run.closer.course for group in groups for run in group.runs):
        return []
    blocks: list[Block] = [title, Paragraph(_STALENESS_NOTE), *images]
    measured = [(group, seen) for group in groups if (seen := looked_at(group))]
    if measured:
        blocks += [_table(measured), Paragraph(_CLOSEUP_NOTE)]
        others = [
            f"{seen.meta['run']} (from push {seen.meta['first_other']} on)"
            for _, each in measured
            for seen in each
            if not seen.meta["identical"]
        ]
        if others:
            blocks.append(
                Paragraph(f"Not computed again bit for bit, but in order: {', '.join(others)}.")
            )
    problems = [run.closer.problem for group in groups for run in group.runs if run.closer.problem]
    blocks += [Paragraph(f"Left out: {problem}.") for problem in problems]
    if not measured:
        blocks.append(Paragraph(_HINT))
    return blocks


def _table(measured: Sequence[tuple[Group, Sequence[Closeup]]]) -> Table:
    header = ("run", "pushes looked at", "staleness", "gap", "effective lr", "compensation %")
    rows = []
    for group, each in measured:
        values: dict[str, Any] = {
            "staleness": np.concatenate([seen.staleness for seen in each]).astype(np.float64),
            "gap": np.concatenate([seen.gap for seen in each]),
            "lr": np.concatenate([seen.effective_lr for seen in each]),
            "share": 100 * np.concatenate([seen.compensation_share for seen in each]),
        }
        means = [mean_of(column) for column in values.values()]
        shown = ["-" if mean is None else f"{mean:.3g}" for mean in means]
        rows.append((group.label, f"{sum(map(len, each)):,}", *shown))
    return Table(header, tuple(rows), narrow=True)
