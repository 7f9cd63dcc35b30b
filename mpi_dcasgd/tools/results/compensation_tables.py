"""Tables of studies of delay compensation: errors of tuned algorithms, and their differences."""

from __future__ import annotations

from collections.abc import Sequence

from mpi_dcasgd.reporting.paired import paired
from mpi_dcasgd.tools.bench.spread import table
from mpi_dcasgd.tools.results.means import Mean, chosen
from mpi_dcasgd.tools.results.studies import Row

_HEADS = ("workers", "algorithm", "lr", "lambda", "test error %", "against asgd")
_STALENESS = {"staleness_mean": "{:.1f}", "staleness_max": "{:.0f}"}


def errors_of(rows: Sequence[Row], part: str, target: float) -> str:
    """Table of the tuned algorithms of a part, a line for each number of workers.

    Args:
        rows: Of the whole study.
        part: Whose lines.
        target: Test error whose time is told.
    """
    mine = chosen(rows, part=part)
    lines = []
    for workers in sorted({row["workers"] for row in mine}):
        for algorithm in dict.fromkeys(row["algorithm"] for row in mine):
            arm = chosen(mine, algorithm=algorithm, workers=workers)
            if arm:
                plain = chosen(mine, algorithm="asgd", workers=workers)
                lines.append(_error_line(arm, plain, target))
    reached = f"time to {target:.0%}".replace("%", " %")
    heads = (*_HEADS, "staleness", "largest", reached, "seeds")
    return table(heads, lines, words=2)


def _error_line(arm: Sequence[Row], plain: Sequence[Row], target: float) -> list[str]:
    first = arm[0]
    alone = first["algorithm"] == "sgd"
    return [
        "-" if alone else str(first["workers"]),
        f"`{first['algorithm']}`",
        f"{first['lr']:g}",
        f"{first['dc_lambda']:g}" if "dc_lambda" in first else "",
        percent(arm),
        "" if first["algorithm"] in ("sgd", "asgd") else against(arm, plain),
        *("" if alone else _mean(arm, key, form) for key, form in _STALENESS.items()),
        "" if alone else _time_to(target, arm),
        str(len(arm)),
    ]


def _mean(rows: Sequence[Row], key: str, form: str) -> str:
    values = [row[key] for row in rows if row.get(key) is not None]
    return Mean.of(values).show(form.format) if values else ""


def percent(rows: Sequence[Row]) -> str:
    """Show the mean test error of some runs in per cent; one that diverged has that of a guess.

    Example:
        >>> percent([{"error": 0.12}, {"error": 0.14}])
        '13.00 ± 12.71'
        >>> percent([])
        ''
    """
    errors = [100 * row["error"] for row in rows if row["error"] is not None]
    if not errors:
        return "diverges" if rows else ""
    shown = Mean.of(errors).show("{:.2f}".format)
    lost = len(rows) - len(errors)
    return f"{shown}; {lost} diverge" if lost else shown


def against(arm: Sequence[Row], plain: Sequence[Row]) -> str:
    """Difference of the errors, paired by seed, in points."""
    theirs, ours = (
        {row["seed"]: 100 * row["error"] for row in rows if row["error"] is not None}
        for rows in (arm, plain)
    )
    found = paired(theirs, ours)
    if found is None:
        return ""
    if found.low is None or found.high is None:
        return f"{found.mean:+.2f}"
    told = "" if found.low > 0 or found.high < 0 else ", within noise"
    return f"{found.mean:+.2f} ± {(found.high - found.low) / 2:.2f}{told}"


def _time_to(target: float, arm: Sequence[Row]) -> str:
    """Virtual seconds, in units of a mean step, at the first evaluation at the target or below."""
    times = [
        next((t for _, t, error in row["curve"] if error is not None and error <= target), None)
        for row in arm
    ]
    reached = [time for time in times if time is not None]
    if not reached:
        return "never"
    shown = Mean.of(reached).show("{:.0f}".format)
    return shown if len(reached) == len(arm) else f"{shown}; {len(arm) - len(reached)} never"


def beside(rows: Sequence[Row]) -> str:
    """Errors as the paper has them: a line for each number of workers, a column for each rule."""
    equal = chosen(rows, part="equal")
    # Delays do not change what these two do, so only one part has them.
    alone, synchronous = (
        chosen(rows, part="unequal", algorithm=algorithm) for algorithm in ("sgd", "ssgd")
    )
    names = ("asgd", "dcasgd-c", "dcasgd-a")
    lines = [["1", percent(alone), *[""] * (1 + len(names))]] if equal else []
    for workers in sorted({row["workers"] for row in equal}):
        arms = [chosen(equal, algorithm=name, workers=workers) for name in names]
        arms.insert(0, chosen(synchronous, workers=workers))
        lines.append([str(workers), "", *map(percent, arms)])
    return table(["workers", "`sgd`", "`ssgd`", *(f"`{name}`" for name in names)], lines, words=0)
