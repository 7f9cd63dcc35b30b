"""Time to a result, taken apart: the samples that a run needed and the rate at which they passed.

The time to a result, such as a test error, is the samples until then divided by the samples a
second. Asynchronous training should win by the second and loses by the first, so both are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from mpi_dcasgd.reporting.collect import Point
from mpi_dcasgd.reporting.document import Table
from mpi_dcasgd.reporting.groups import Group, Stat, first_reaching, most_alike
from mpi_dcasgd.reporting.table import name_of, show_metric
from mpi_dcasgd.rules.algorithms import ALGORITHMS

_NOTE = (
    "Each row at the {best} {metric} that all its runs and all runs of the row it is held against"
    " reached, at their first evaluation there; below 1, time × says that it was there sooner."
    " Time × is samples × divided by samples/s ×. Samples × above 1 is what staleness costs; below"
    " 1, fewer samples were needed. Samples/s × is what the workers gain by not waiting for one"
    " another, and lose by waiting for the server. Geometric means over the seeds that both rows"
    " have; in brackets the least and the most. The resolution is that of the evaluations."
)


def sooner_note(groups: Sequence[Group]) -> str:
    """Say how the table is to be read."""
    measures = groups[0].measures
    split = "validation" if all(group.validated for group in groups) else "test"
    best = "highest" if measures.higher_is_better else "lowest"
    return _NOTE.format(best=best, metric=f"{split} {measures.primary}")


@dataclass(frozen=True, slots=True)
class Ratio:
    """One seed: what a run needed over what its counterpart needed."""

    samples: float
    time: float

    @classmethod
    def of(cls, ours: Point, theirs: Point) -> Ratio:
        return cls(ours.samples / theirs.samples, ours.time_s / theirs.time_s)


def sooner_table(groups: Sequence[Group]) -> Table | None:
    """One row for each group that there is another to hold it against; None without any."""
    measures, rows = groups[0].measures, []
    primary = measures.primary
    for group in groups:
        other = counterpart(group, groups)
        compared = other and compare_rows(group, other)
        if not other or not compared:
            continue
        target, ratios = compared
        samples = geometric_mean(ratio.samples for ratio in ratios)
        times = [ratio.time for ratio in ratios]
        time = geometric_mean(times)
        spread = f" ({min(times):.2f} to {max(times):.2f})" if len(times) > 1 else ""
        rows.append(
            (
                name_of(group),
                str(group.num_workers),
                other.label,
                show_metric(Stat.of([target]), measures, primary),
                f"{samples:.2f}",
                f"{samples / time:.2f}",
                f"{time:.2f}{spread}",
            )
        )
    at = f"at {measures.title(primary)}"
    header = ("algorithm", "workers", "against", at, "samples ×", "samples/s ×", "time ×")
    return Table(header, tuple(rows), frozenset({0, 2})) if rows else None


def counterpart(group: Group, groups: Sequence[Group]) -> Group | None:
    """Return the row to hold another against.

    The synchronous group of as many workers, or else the sequential one; None if unclear.
    """
    if group.sequential:
        return None
    rivals = [
        other
        for other in groups
        if is_synchronous(other)
        and other.num_workers == group.num_workers
        and other.simulated == group.simulated
    ]
    if group in rivals or not rivals:
        # Virtual seconds over real ones would be no ratio.
        rivals = [] if group.simulated else [other for other in groups if other.sequential]
    return most_alike(group, rivals)


def is_synchronous(group: Group) -> bool:
    """Return whether the workers of a row wait for one another at every step."""
    known = ALGORITHMS.get(group.algorithm)
    return known is not None and known.mode == "synchronous"


def compare_rows(group: Group, other: Group) -> tuple[float, list[Ratio]] | None:
    """The value at which they are compared, and a ratio for each seed that both have."""
    measures = group.measures
    best = [measures.best(run.points, lambda p: p.choosing) for run in (*group.runs, *other.runs)]
    reached = [point.choosing for point in best if point is not None]
    if len(reached) < len(best):
        return None
    target = min(reached) if measures.higher_is_better else max(reached)
    ours, theirs = _by_seed(group, target), _by_seed(other, target)
    shared = sorted(ours.keys() & theirs.keys())
    ratios = [Ratio.of(ours[seed], theirs[seed]) for seed in shared]
    return (target, ratios) if ratios else None


def _by_seed(group: Group, target: float) -> dict[int, Point]:
    """First evaluation at the target or better by seed; of equal seeds the first run counts."""
    found: dict[int, Point] = {}
    choose = first_reaching(target)
    for run in group.runs:
        point = choose(run)
        if point is not None and point.samples > 0 and point.time_s > 0:
            found.setdefault(run.seed, point)
    return found
