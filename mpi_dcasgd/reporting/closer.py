"""Content of a report's section "Looking closer": staleness over time, and what was measured.

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
from mpi_dcasgd.record.rate_limit import exceeded_at_the_end
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.trace import Trace
from mpi_dcasgd.record.warnings import RATE
from mpi_dcasgd.reporting.document import Block, Bullets, Heading, Image, Paragraph, Table
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
    " gradient's norm. Medians over the pushes that were looked at."
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
    """Knowledge of the pushes of one run.

    Attributes:
        course: Its staleness; None without a trace, and where nothing was stale.
        closeup: What ``closeup`` measured; None if it was not used.
        problem: Why that cannot be read; empty if it can.
        warnings: What the run warned of while it was at work, and kinds of these.
        too_large: By how much its learning rate was beyond the largest stable one; empty if it was
            not, or if no curvature is known.
    """

    course: Course | None = None
    closeup: Closeup | None = None
    problem: str = ""
    warnings: tuple[str, ...] = ()
    too_large: str = ""


def look_closer(
    folder: RunFolder, trace: Trace | None, events: Sequence[Mapping[str, Any]]
) -> Closer:
    """Read what there is of one run."""
    warnings = [each for each in events if each["event"] == "warning"]
    rates = [str(each["text"]) for each in warnings if each["kind"] == RATE]
    closeup, problem = None, ""
    try:
        rates += [text] if (text := exceeded_at_the_end(folder.sharpness())) else []
        if trace is not None and folder.closeup_jsonl.is_file():
            closeup = folder.closeup()
    except RunFolderError as error:
        problem = str(error)
    return Closer(
        course=course_of(trace) if trace is not None else None,
        closeup=closeup,
        problem=problem,
        warnings=tuple(str(each["text"]) for each in warnings),
        too_large=rates[0] if rates else "",
    )


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


def median_of(values: Numbers) -> float | None:
    """Return the median of what is a number; None if nothing is.

    A mean of quotients would be that of the few gradients that were next to nothing.
    """
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None


def rates_too_large(groups: Sequence[Group]) -> str:
    """Say which rows had a learning rate beyond the largest stable one; empty if none is known."""
    told = []
    for group in groups:
        texts = [run.closer.too_large for run in group.runs if run.closer.too_large]
        if texts:
            of = f" in {len(texts)} of {len(group.runs)} runs" if len(group.runs) > 1 else ""
            told.append(f"{group.label}{of}: {texts[0]}")
    if not told:
        return ""
    return f"The learning rate was beyond the stability limit of the delay. {'. '.join(told)}."


def closer_blocks(groups: Sequence[Group], title: Heading, images: Sequence[Image]) -> list[Block]:
    """Write the section; empty if nothing is known of any run.

    Args:
        groups: The rows of the report.
        title: Heading of the section.
        images: Its pictures, in order.
    """
    each = [(group, run.closer) for group in groups for run in group.runs]
    warned = [line for group in groups for line in _warned(group)]
    stale = any(closer.course for _, closer in each)
    if not stale and not warned:
        return []
    blocks: list[Block] = [title]
    if warned:
        blocks += [Paragraph("Runs warned of:"), Bullets(tuple(warned))]
    if not stale:
        return blocks
    blocks += [Paragraph(_STALENESS_NOTE), *images]
    measured = [(group, seen) for group in groups if (seen := looked_at(group))]
    if measured:
        blocks += [_table(measured), Paragraph(_CLOSEUP_NOTE)]
        others = [
            f"{seen.meta['run']} (from push {seen.meta['first_other']} on)"
            for _, all_seen in measured
            for seen in all_seen
            if not seen.meta["identical"]
        ]
        if others:
            blocks.append(
                Paragraph(f"Not computed again bit for bit, but in order: {', '.join(others)}.")
            )
    problems = [closer.problem for _, closer in each if closer.problem]
    blocks += [Paragraph(f"Left out: {problem}.") for problem in problems]
    if not measured:
        blocks.append(Paragraph(_HINT))
    return blocks


def _warned(group: Group) -> list[str]:
    """A line for each thing that runs of a group warned of, with their names if it has several."""
    found: dict[str, list[str]] = {}
    for run in group.runs:
        for text in dict.fromkeys(run.closer.warnings):
            found.setdefault(text, []).append(run.path.name)
    alone = len(group.runs) == 1
    return [
        f"{group.label}{'' if alone else ' (' + ', '.join(names) + ')'}: {text}"
        for text, names in found.items()
    ]


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
        medians = [median_of(column) for column in values.values()]
        shown = ["-" if median is None else f"{median:.3g}" for median in medians]
        rows.append((group.label, f"{sum(map(len, each)):,}", *shown))
    return Table(header, tuple(rows), narrow=True)
