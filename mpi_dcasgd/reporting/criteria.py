"""Criteria by which rows are judged, and the rows that can be held against one another."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mpi_dcasgd.learning.measures import PERCENT
from mpi_dcasgd.reporting.collect import RunResult
from mpi_dcasgd.reporting.effort import rank_seconds_to, seconds_to, show_rank_seconds
from mpi_dcasgd.reporting.groups import Group
from mpi_dcasgd.reporting.table import digits_of
from mpi_dcasgd.reporting.tasks import TaskRuns
from mpi_dcasgd.reporting.verdict import Criterion

_MOST = 0.75
"""Share of the rows that must have reached a target that nobody has set."""


def contestants(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Rows whose seconds can be compared: the real ones, or the simulated if no other is there."""
    real = tuple(group for group in groups if group.driver not in ("simulator", "replay"))
    if any(not group.sequential for group in real):
        return real
    return tuple(group for group in groups if group.simulated) or real


def common_target(groups: Sequence[Group]) -> float | None:
    """The best value that three quarters of the rows reached in all their runs.

    It is rounded to three digits, away from the best. None where too few have any result.
    """
    if not groups:
        return None
    measures = groups[0].measures
    sign = -1 if measures.higher_is_better else 1
    reached = sorted(sign * value for group in groups if (value := _of_all(group)) is not None)
    needed = math.ceil(_MOST * len(groups))
    if len(reached) < needed:
        return None
    value = reached[needed - 1]
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    return float(f"{sign * math.ceil(value / unit * (1 - 1e-12)) * unit:.12g}")


def _of_all(group: Group) -> float | None:
    """The best value that all runs of a row reached."""
    measures = group.measures
    best = [measures.best(run.points, lambda point: point.choosing) for run in group.runs]
    values = [point.choosing for point in best if point is not None]
    if len(values) < len(best) or not all(map(math.isfinite, values)):
        return None
    return min(values) if measures.higher_is_better else max(values)


def by_time(part: TaskRuns, target: float) -> Criterion:
    """Seconds until a target."""

    def value(run: RunResult) -> float | None:
        return seconds_to(run, target)

    reached = part.reached(target)
    return Criterion(f"time to {reached}", value, _seconds, _seconds, _NOT_REACHED)


def by_cost(part: TaskRuns, target: float) -> Criterion:
    """Device-hours until a target, the server's rank counted."""

    def value(run: RunResult) -> float | None:
        return rank_seconds_to(run, target)

    name = f"device-hours to {part.reached(target)}, the server's rank counted"
    return Criterion(name, value, show_rank_seconds, show_rank_seconds, _NOT_REACHED)


def by_result(part: TaskRuns) -> Criterion:
    """The primary metric of the final weights, on the test split."""
    measures, primary = part.measures, part.measures.primary

    def value(run: RunResult) -> float | None:
        return run.number(f"test_{primary}")

    def show(value: float) -> str:
        return measures.shown(primary, value)

    def show_difference(value: float) -> str:
        if measures.units.get(primary) == PERCENT:
            return f"{100 * value:.2f} points"
        return measures.shown(primary, value)

    return Criterion(
        f"final test {primary}",
        value,
        show,
        show_difference,
        "Not ranked, since some run diverged or has no result",
        measures.higher_is_better,
    )


_NOT_REACHED = "Not ranked, since some run did not get there"


def _seconds(value: float) -> str:
    return f"{value:,.{digits_of(value)}f} s"
