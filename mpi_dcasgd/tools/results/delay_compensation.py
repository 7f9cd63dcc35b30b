"""Does delay compensation make up for delay, as Zheng et al. (2017) say?

Fashion-MNIST and a small network with BatchNorm, simulated with real gradients: learning rate and
lambda tuned for each algorithm with the same number of runs, then five fresh seeds; what lambda,
the reading of the mean square, momentum and a warm-up of the rate do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import mpi_dcasgd
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.study_folder import StudyFolder
from mpi_dcasgd.reporting.paired import paired
from mpi_dcasgd.tools.bench.spread import table
from mpi_dcasgd.tools.results.delay_compensation_plots import draw_errors, draw_rates
from mpi_dcasgd.tools.results.kept import Kept
from mpi_dcasgd.tools.results.means import Mean, chosen
from mpi_dcasgd.tools.results.runs import compared, finite, row_of, seconds_of
from mpi_dcasgd.tools.results.studies import Page, Row

TARGET = 0.18
"""Test error whose time is told."""

_METRICS = ("error", "loss")
_TUNED = ("unequal", "equal", "wide")
_PARTS = ("unequal", "lambda", "equal", "momentum", "wide", "warmup")
_SHORT: Mapping[str, Mapping[str, Any]] = {
    "unequal": {
        "workers": [16],
        "seeds": [0, 1],
        "tune": {"grid": {"lr": [0.06, 0.4]}, "seed": 100},
    },
    "lambda": {"seeds": [0]},
}
_SHORT_ONLY = {"lambda": ["asgd-*", "*dc_lambda2-w32*"]}


def run(kept: Kept, short: bool) -> list[Row]:
    """Make the runs that are missing; see ``StudyModule``."""
    rows: list[Row] = []
    for part in _SHORT if short else _PARTS:
        changes = _SHORT[part] if short else None
        only = _SHORT_ONLY.get(part) if short else None
        name = f"delay-compensation-{part}"
        found = compared(
            kept,
            name,
            _METRICS,
            changes=changes,
            only=only,
            points=100,
            more=_settings,
            in_process=True,
            show=kept.show,
        )
        if part in _TUNED:
            rows += _tuning_rows(kept, name, part)
        rows += [{"part": part, **row} for row in found]
    return rows


def _tuning_rows(kept: Kept, name: str, part: str) -> list[Row]:
    """A row for each tuning run, which ends with its error on the validation split."""
    rows = []
    tuning = StudyFolder(kept.folder / name).tuning
    for run_name in tuning.names():
        path = tuning.run(run_name).path
        if not tuning.run(run_name).summary(lenient=True):
            continue  # of another form of the study, and not at its end

        def make(path: Any = path) -> Row:
            run = mpi_dcasgd.Run(path)
            completed = run.status == "completed"
            error = finite(run.summary.get("validation_error")) if completed else None
            seconds = seconds_of(RunFolder(path))
            settings = _settings(run) | {"validation_error": error, "seconds": seconds}
            return row_of(run, ()) | settings

        row = kept.row({"study": name, "tuning": run_name}, make)
        rows.append({"part": f"{part}-tuning", **row})
    return rows


def _settings(run: mpi_dcasgd.Run) -> Row:
    """Settings of a run that its row has beside the learning rate."""
    rule = RunFolder(run.path).job()["rule"]
    found: Row = {
        key: rule["compensation"][key]
        for key in ("dc_lambda", "mean_square")
        if key in rule["compensation"]
    }
    if "momentum" in rule["momentum"]:
        found["momentum"] = rule["momentum"]["momentum"]
    if run.job.schedule.warmup_epochs:
        found["warmup_epochs"] = run.job.schedule.warmup_epochs
    if run.status != "completed":
        # What diverged has the error of an evaluation on its way, and no number of workers.
        found |= dict.fromkeys(_METRICS)
        if named := re.search(r"-w(\d+)", run.path.name):
            found["workers"] = int(named[1])
    return found


def page(rows: Sequence[Row]) -> Page:
    """Make tables and plots; see ``StudyModule``."""
    tables = {part: _errors(rows, part) for part in _TUNED} | {
        "lambda": _lambdas(rows),
        "warmup": _warmup(rows),
        "momentum": _momentum(rows),
        "beside": _beside(rows),
    }
    return Page(
        # A short form leaves parts out.
        {name: text for name, text in tables.items() if len(text.splitlines()) > 2},
        {"errors": partial(draw_errors, rows), "rates": partial(draw_rates, rows)},
    )


def _errors(rows: Sequence[Row], part: str) -> str:
    mine = chosen(rows, part=part)
    lines = []
    for workers in sorted({row["workers"] for row in mine}):
        for algorithm in dict.fromkeys(row["algorithm"] for row in mine):
            arm = chosen(mine, algorithm=algorithm, workers=workers)
            if arm:
                plain = chosen(mine, algorithm="asgd", workers=workers)
                lines.append(_error_line(arm, plain))
    heads = ("workers", "algorithm", "lr", "lambda", "test error %", "against asgd", *_HEADS)
    return table(heads, lines, words=2)


_HEADS = ("staleness", "largest", f"time to {TARGET:.0%}".replace("%", " %"), "seeds")


def _error_line(arm: Sequence[Row], plain: Sequence[Row]) -> list[str]:
    first = arm[0]
    alone = first["algorithm"] == "sgd"
    return [
        "-" if alone else str(first["workers"]),
        f"`{first['algorithm']}`",
        f"{first['lr']:g}",
        f"{first['dc_lambda']:g}" if "dc_lambda" in first else "",
        percent(arm),
        "" if first["algorithm"] in ("sgd", "asgd") else _against(arm, plain),
        *("" if alone else _mean(arm, key, form) for key, form in _STALENESS.items()),
        "" if alone else _time_to_target(arm),
        str(len(arm)),
    ]


_STALENESS = {"staleness_mean": "{:.1f}", "staleness_max": "{:.0f}"}


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


def _against(arm: Sequence[Row], plain: Sequence[Row]) -> str:
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


def _time_to_target(arm: Sequence[Row]) -> str:
    """Virtual seconds, in units of a mean step, at the first evaluation at the target or below."""
    times = [
        next((t for _, t, error in row["curve"] if error is not None and error <= TARGET), None)
        for row in arm
    ]
    reached = [time for time in times if time is not None]
    if not reached:
        return "never"
    shown = Mean.of(reached).show("{:.0f}".format)
    return shown if len(reached) == len(arm) else f"{shown}; {len(arm) - len(reached)} never"


def _lambdas(rows: Sequence[Row]) -> str:
    mine = chosen(rows, part="lambda")
    rates = sorted({row["lr"] for row in mine})
    lines = []
    for row in mine:
        key = {name: row.get(name) for name in ("algorithm", "dc_lambda", "mean_square")}
        line = [f"`{key['algorithm']}`", f"{key['dc_lambda'] or 0:g}", key["mean_square"] or ""]
        line += [percent(chosen(mine, lr=rate, **key)) for rate in rates]
        if line not in lines:
            lines.append(line)
    heads = ["algorithm", "lambda", "mean square", *(f"lr {rate:g}" for rate in rates)]
    return table(heads, lines, words=3)


def _warmup(rows: Sequence[Row]) -> str:
    mine = chosen(rows, part="warmup")
    arms = dict.fromkeys((row["algorithm"], row.get("dc_lambda"), row["lr"]) for row in mine)
    lines = []
    for algorithm, dc_lambda, lr in arms:
        its = chosen(mine, algorithm=algorithm, dc_lambda=dc_lambda, lr=lr)
        without, warmed = (chosen(its, warmup_epochs=epochs) for epochs in (None, 1.0))
        line = [f"`{algorithm}`", f"{dc_lambda or 0:g}", f"{lr:g}"]
        lines.append([*line, percent(without), percent(warmed), _against(warmed, without)])
    heads = ["algorithm", "lambda", "lr", "without", "with warm-up", "difference"]
    return table(heads, lines, words=1)


def _momentum(rows: Sequence[Row]) -> str:
    mine = chosen(rows, part="momentum")
    lines = []
    for row in mine:
        key = {name: row.get(name) for name in ("algorithm", "workers", "momentum", "lr")}
        line = [
            f"{key['workers']}",
            f"`{key['algorithm']}`",
            f"{key['momentum'] or 0:g}",
            f"{key['lr']:g}",
            percent(chosen(mine, **key)),
        ]
        if line not in lines:
            lines.append(line)
    return table(["workers", "algorithm", "momentum", "lr", "test error %"], lines, words=2)


def _beside(rows: Sequence[Row]) -> str:
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
