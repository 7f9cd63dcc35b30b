"""The tables of a report. Fractions are in per cent here, and nowhere before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.reporting.collect import Point, RunResult
from mpi_dcasgd.reporting.document import Table
from mpi_dcasgd.reporting.groups import (
    Group,
    Stat,
    at_epoch,
    first_reaching,
    in_words,
    last_before,
    most_alike,
)

Column = tuple[str, Callable[[Group], str]]
"""The head of a column, and what a group has in it."""

NONE = "-"
"""In place of a number that does not exist."""


@dataclass(frozen=True, slots=True)
class Matching:
    """At what the groups are compared, besides the end of their runs.

    Attributes:
        epoch: The last epoch that all of them reached, or None if that is the end of all.
        time_s: When all runs of the quickest of them were done, or None if there is but one.
    """

    epoch: int | None
    time_s: float | None

    @classmethod
    def of(cls, groups: Sequence[Group]) -> Matching:
        ends = [max((p.epoch for p in run.points), default=0) for g in groups for run in g.runs]
        epoch = min(ends) if min(ends) != max(ends) and min(ends) > 0 else None
        walls = [wall for g in groups if (wall := g.stat("wall_s")) is not None]
        quickest = min(walls, key=lambda wall: wall.mean, default=None)
        time_s = quickest.largest if quickest is not None and len(walls) > 1 else None
        return cls(epoch, time_s)


def result_table(groups: Sequence[Group], matching: Matching) -> Table:
    """Result table: one row per group, mean and sample standard deviation over its runs.

    Columns that would be empty in every row are left out.
    """
    columns: list[Column] = [
        ("algorithm", name_of),
        ("workers", lambda g: NONE if g.sequential else str(g.num_workers)),
        ("runs", lambda g: str(len(g.runs))),
        *_results(groups, matching),
        ("wall s", lambda g: show(g.stat("wall_s"), digits(groups, "wall_s"))),
        ("samples/s", lambda g: show(g.stat("samples_per_s"), digits(groups, "samples_per_s"))),
        ("speed-up", lambda g: _speed_up(g, groups)),
        ("staleness", staleness_of),
        ("max", lambda g: NONE if g.sequential else str(max(g.histogram, default=NONE))),
    ]
    return _without_empty(columns, groups)


def _results(groups: Sequence[Group], matching: Matching) -> list[Column]:
    """Columns of the primary metric: at the end, at its best, and where all can be matched."""
    measures = groups[0].measures
    primary, title = measures.primary, measures.title(measures.primary)

    def of(key: str) -> Callable[[Group], str]:
        return lambda g: show_metric(g.metric(key), measures, primary)

    columns = [(f"test {title}", of(f"test_{primary}"))]
    if any(g.validated for g in groups):
        columns.append((f"validation {title}", of(f"validation_{primary}")))
    if any(g.metric(f"best_test_{primary}") != g.metric(f"test_{primary}") for g in groups):
        unit = measures.units.get(primary)
        columns.append((f"best {unit}" if unit else "best", of(f"best_test_{primary}")))
    if matching.epoch is not None:
        choose = at_epoch(matching.epoch)
        columns.append((f"{title} at epoch {matching.epoch}", lambda g: _value(g.at(choose), g)))
    if matching.time_s is not None:
        before = last_before(matching.time_s)
        columns.append(
            (f"{title} at {seconds(matching.time_s)} s", lambda g: _value(g.at(before), g))
        )
    return columns


def metrics_table(groups: Sequence[Group]) -> Table | None:
    """All metrics of the final weights; None where the result table has all there are.

    The loss of classification is in metrics.jsonl, but nothing that algorithms are compared by.
    """
    measures = groups[0].measures
    names = dict.fromkeys(name for g in groups for run in g.runs for name in _metrics_of(run))
    known = {measures.primary, "loss"} if measures.primary == "error" else {measures.primary}
    validated = any(g.validated for g in groups)
    if not validated and not names.keys() - known:
        return None
    columns: list[Column] = [
        ("algorithm", name_of),
        ("workers", lambda g: NONE if g.sequential else str(g.num_workers)),
    ]
    for split in ("test", "validation") if validated else ("test",):
        for name in names:
            columns.append((f"{split} {measures.title(name)}", _metric(split, name, measures)))
    columns.append(("train loss", _metric("train", "loss", measures)))
    return _without_empty(columns, groups)


def _metric(split: str, name: str, measures: Measures) -> Callable[[Group], str]:
    return lambda g: show_metric(g.metric(f"{split}_{name}"), measures, name)


def _metrics_of(run: RunResult) -> dict[str, None]:
    """Names of a run's metrics, the primary one first."""
    names = {name: None for point in run.points for name in point.metrics}
    primary = run.measures.primary
    return dict.fromkeys(sorted(names, key=lambda name: name != primary))


def target_table(groups: Sequence[Group], target: float) -> Table:
    """Time until each group's primary metric was at the target or better."""
    choose = first_reaching(target)

    def of(quantity: Callable[[Point], float], digits: int) -> Callable[[Group], str]:
        return lambda g: show(Stat.of(quantity(point) for point in g.at(choose)), digits)

    columns: list[Column] = [
        ("algorithm", name_of),
        ("workers", lambda g: NONE if g.sequential else str(g.num_workers)),
        ("reached it", lambda g: f"{len(g.at(choose))} of {len(g.runs)}"),
        ("epochs", of(lambda point: point.epoch, 1)),
        ("seconds", of(lambda point: point.time_s, digits(groups, "wall_s"))),
        ("samples", of(lambda point: point.samples, 0)),
    ]
    return _table(columns, groups)


def time_table(groups: Sequence[Group]) -> Table | None:
    """Shares of the workers' time by kind; None if nothing was measured."""
    kinds = ("compute_s", "data_s", "wait_s", "comm_s")

    def share(kind: str) -> Callable[[Group], str]:
        def cell(group: Group) -> str:
            totals = [worker for run in group.runs for worker in run.workers]
            whole = sum(float(worker.get(k) or 0.0) for worker in totals for k in kinds)
            part = sum(float(worker.get(kind) or 0.0) for worker in totals)
            return f"{100 * part / whole:.0f}" if whole > 0 else NONE

        return cell

    names = ("computing %", "data %", "waiting %", "communicating %")
    columns: list[Column] = [
        ("algorithm", name_of),
        ("workers", lambda g: NONE if g.sequential else str(g.num_workers)),
        *zip(names, map(share, kinds), strict=True),
    ]
    table = _table(columns, groups)
    measured = [row for row in table.rows if row[2] != NONE]
    return Table(table.header, tuple(measured)) if measured else None


def seconds(time_s: float) -> str:
    """Three digits, and never an exponent."""
    return f"{time_s:,.0f}" if time_s >= 100 else f"{time_s:.3g}"


def show(stat: Stat | None, digits: int, scale: float = 1.0) -> str:
    """``3.12 ± 0.15``, or ``3.12`` where one run has no spread, or a dash."""
    if stat is None:
        return NONE
    mean = f"{scale * stat.mean:,.{digits}f}"
    return mean if stat.std is None else f"{mean} ± {scale * stat.std:,.{digits}f}"


def show_metric(stat: Stat | None, measures: Measures, metric: str) -> str:
    """``3.12 ± 0.15`` of a percentage, four digits of anything else, or a dash."""
    if stat is None:
        return NONE
    if measures.scale(metric) != 1:
        return show(stat, 2, measures.scale(metric))
    return f"{stat.mean:.4g}" + ("" if stat.std is None else f" ± {stat.std:.2g}")


def name_of(group: Group) -> str:
    """The label without the number of workers, which has a column."""
    settings = in_words(group.settings)
    return ", ".join([group.algorithm, *settings, *([group.manner] if group.manner else [])])


def staleness_of(group: Group) -> str:
    """Mean staleness, or what is to be said instead."""
    if group.sequential:
        return NONE
    if not max(group.histogram, default=0):
        return "0"  # by construction, not by measurement
    return show(group.stat("staleness_mean"), 2)


def digits(groups: Sequence[Group], key: str) -> int:
    """Decimals for a column: the smallest mean keeps three digits; at most 2."""
    return digits_of(min((s.mean for g in groups if (s := g.stat(key)) is not None), default=0.0))


def digits_of(smallest: float) -> int:
    """Decimals for a number: three digits are kept; at most 2."""
    return 2 if smallest < 10 else 1 if smallest < 100 else 0


def _value(points: Sequence[Point], group: Group) -> str:
    found = Stat.of(point.value for point in points)
    if found is None or found.n < len(group.runs):
        return NONE  # some of its runs have none there: a mean would flatter the group
    return show_metric(found, group.measures, group.measures.primary)


def _speed_up(group: Group, groups: Sequence[Group]) -> str:
    if group.simulated:
        return NONE  # virtual seconds over real ones would be no ratio
    baseline = most_alike(group, [g for g in groups if g.sequential])
    ours = group.stat("samples_per_s")
    theirs = baseline.stat("samples_per_s") if baseline else None
    if ours is None or theirs is None or theirs.mean <= 0:
        return NONE
    return f"{ours.mean / theirs.mean:.2f}"


def _table(columns: Sequence[Column], groups: Sequence[Group]) -> Table:
    rows = tuple(tuple(cell(group) for _, cell in columns) for group in groups)
    return Table(tuple(name for name, _ in columns), rows)


def _without_empty(columns: Sequence[Column], groups: Sequence[Group]) -> Table:
    table = _table(columns, groups)
    kept = [
        column
        for column in range(len(table.header))
        if column == 0 or any(row[column] != NONE for row in table.rows)
    ]
    return Table(
        tuple(table.header[column] for column in kept),
        tuple(tuple(row[column] for column in kept) for row in table.rows),
    )
