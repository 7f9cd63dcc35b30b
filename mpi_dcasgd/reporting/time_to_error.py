"""Time to an error, taken apart: the samples that a run needed and the rate at which they passed.

The time to an error is the samples until then divided by the samples a second. Asynchronous
training is to win by the second and loses by the first, so both are told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from mpi_dcasgd.reporting.collect import Point
from mpi_dcasgd.reporting.document import Table
from mpi_dcasgd.reporting.groups import Group, first_at_most, most_alike
from mpi_dcasgd.reporting.table import name_of
from mpi_dcasgd.rules.algorithms import ALGORITHMS

NOTE = (
    "Each row at the lowest test error that all its runs and all runs of the row it is held against"
    " reached, at their first evaluation there; below 1, time × says that it was there sooner."
    " Time × is samples × divided by samples/s ×. Samples × above 1 is what staleness costs; below"
    " 1, fewer samples were needed. Samples/s × is what the workers gain by not waiting for one"
    " another, and lose by waiting for the server. Geometric means over the seeds that both rows"
    " have; in brackets the least and the most. The resolution is that of the evaluations."
)


@dataclass(frozen=True, slots=True)
class _Ratio:
    """One seed: what a run needed over what its counterpart needed."""

    samples: float
    time: float

    @classmethod
    def of(cls, ours: Point, theirs: Point) -> _Ratio:
        return cls(ours.samples / theirs.samples, ours.time_s / theirs.time_s)


def sooner_table(groups: Sequence[Group]) -> Table | None:
    """One row for each group that there is another to hold it against; None without any."""
    rows = []
    for group in groups:
        other = _counterpart(group, groups)
        compared = other and _compare(group, other)
        if not other or not compared:
            continue
        error, ratios = compared
        samples = geometric_mean(ratio.samples for ratio in ratios)
        times = [ratio.time for ratio in ratios]
        time = geometric_mean(times)
        spread = f" ({min(times):.2f} to {max(times):.2f})" if len(times) > 1 else ""
        rows.append(
            (
                name_of(group),
                str(group.num_workers),
                other.label,
                f"{100 * error:.2f}",
                f"{samples:.2f}",
                f"{samples / time:.2f}",
                f"{time:.2f}{spread}",
            )
        )
    header = ("algorithm", "workers", "against", "at error %", "samples ×", "samples/s ×", "time ×")
    return Table(header, tuple(rows), frozenset({0, 2})) if rows else None


def _counterpart(group: Group, groups: Sequence[Group]) -> Group | None:
    """The synchronous group of as many workers, or else the sequential one; None if unclear."""
    if group.sequential:
        return None
    rivals = [
        other
        for other in groups
        if _synchronous(other)
        and other.num_workers == group.num_workers
        and other.simulated == group.simulated
    ]
    if group in rivals or not rivals:
        # Virtual seconds over real ones would be no ratio.
        rivals = [] if group.simulated else [other for other in groups if other.sequential]
    return most_alike(group, rivals)


def _synchronous(group: Group) -> bool:
    known = ALGORITHMS.get(group.algorithm)
    return known is not None and known.mode == "synchronous"


def _compare(group: Group, other: Group) -> tuple[float, list[_Ratio]] | None:
    """The error at which they are compared, and a ratio for each seed that both have."""
    runs = [*group.runs, *other.runs]
    if not all(run.points for run in runs):
        return None
    error = max(min(point.test_error for point in run.points) for run in runs)
    ours, theirs = _by_seed(group, error), _by_seed(other, error)
    shared = sorted(ours.keys() & theirs.keys())
    ratios = [_Ratio.of(ours[seed], theirs[seed]) for seed in shared]
    return (error, ratios) if ratios else None


def _by_seed(group: Group, error: float) -> dict[int, Point]:
    """First evaluation at or below the error by seed; of equal seeds the first run counts."""
    found: dict[int, Point] = {}
    choose = first_at_most(error)
    for run in group.runs:
        point = choose(run)
        if point is not None and point.samples > 0 and point.time_s > 0:
            found.setdefault(run.seed, point)
    return found
