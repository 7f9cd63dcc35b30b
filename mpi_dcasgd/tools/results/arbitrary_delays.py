"""Does asynchronous SGD stand arbitrary delays, as Mishchenko et al. (2022) say?

The published problem, least squares with 400 unknowns and 40 workers, at the published rates, with
equal workers, exponential step times and unequal workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from mpi_dcasgd.tools.bench.spread import table
from mpi_dcasgd.tools.results.kept import Kept
from mpi_dcasgd.tools.results.means import Mean, chosen, short
from mpi_dcasgd.tools.results.runs import compared
from mpi_dcasgd.tools.results.studies import Page, Row

CLUSTERS = {
    "equal": "all but equal",
    "exponential": "exponential step times",
    "unequal": "unequal workers",
}
_METRICS = ("f_gap",)
_POINTS = 20
_DIVERGED = 0.124
"""f - f* where training begins; a run that ends above it has diverged."""

_COLOURS = {"ssgd": "#0072B2", "asgd": "#D55E00", "adaptive-asgd": "#009E73"}


def run(kept: Kept, short: bool) -> list[Row]:
    """Make the runs that are missing; see ``StudyModule``."""
    changes = {"seeds": [1], "set": {"epochs": 80, "evaluate_every": 8}} if short else None
    rows = []
    for cluster in CLUSTERS:
        name = f"arbitrary-delays-{cluster}"
        found = compared(kept, name, _METRICS, changes=changes, points=_POINTS)
        rows += [{"cluster": cluster, **row} for row in found]
    return rows


def page(rows: Sequence[Row]) -> Page:
    """Make tables and plots; see ``StudyModule``."""
    return Page({"gaps": _gaps(rows)}, {"gaps": partial(_draw_gaps, rows)})


def _arms(rows: Sequence[Row]) -> list[tuple[str, str, float]]:
    """Cluster, algorithm and rate of the arms, each once, in order."""
    return list(dict.fromkeys((row["cluster"], row["algorithm"], row["lr"]) for row in rows))


def _gaps(rows: Sequence[Row]) -> str:
    lines = []
    for cluster, algorithm, lr in _arms(rows):
        mine = chosen(rows, cluster=cluster, algorithm=algorithm, lr=lr)
        lines.append(
            [
                CLUSTERS[cluster],
                f"`{algorithm}`",
                f"{lr:g}",
                _final(mine),
                *(_mean(mine, key, form) for key, form in _COLUMNS.items()),
                str(len(mine)),
            ]
        )
    heads = ["workers", "algorithm", "lr", "f - f*", *_HEADS, "seeds"]
    return table(heads, lines, words=2)


_COLUMNS: dict[str, Callable[[float], str]] = {
    "staleness_mean": "{:.1f}".format,
    "staleness_max": "{:.0f}".format,
    "time_s": "{:,.0f}".format,
}
_HEADS = ("staleness", "largest", "virtual time")


def _final(rows: Sequence[Row]) -> str:
    gaps = [row["f_gap"] for row in rows]
    known = [gap for gap in gaps if gap is not None and gap < _DIVERGED]
    if not known:
        finite = [gap for gap in gaps if gap is not None]
        least = f", {short(min(finite))} or more" if finite else ""
        return f"diverges{least}"
    shown = Mean.of(known).show()
    return shown if len(known) == len(gaps) else f"{shown}; {len(gaps) - len(known)} diverge"


def _mean(rows: Sequence[Row], key: str, form: Callable[[float], str]) -> str:
    values = [row[key] for row in rows if row[key] is not None]
    return Mean.of(values).show(form) if values else ""


def _draw_gaps(rows: Sequence[Row], figure: Any) -> None:
    figure.set_size_inches(9.5, 4)
    axes = figure.subplots(1, len(CLUSTERS), sharey=True)
    for axis, (cluster, title) in zip(axes, CLUSTERS.items(), strict=True):
        for its, algorithm, lr in _arms(rows):
            if its == cluster:
                mine = chosen(rows, cluster=cluster, algorithm=algorithm, lr=lr)
                _curves(axis, mine, f"{algorithm}, lr {lr:g}")
        axis.set_title(title, loc="left")
        axis.set_yscale("log")
        axis.set_ylim(1e-4, 10)
        axis.set_xlabel("thousands of gradients")
        axis.legend(loc="upper right", fontsize=9)
    axes[0].set_ylabel("f - f*")


def _curves(axis: Any, rows: Sequence[Row], label: str) -> None:
    """A line a seed."""
    for number, row in enumerate(rows):
        # A step of ssgd takes a gradient of every worker.
        each = row["workers"] if row["algorithm"] == "ssgd" else 1
        points = [(n * each / 1000, gap) for n, _, gap in row["curve"] if gap is not None]
        axis.plot(
            [n for n, _ in points],
            [gap for _, gap in points],
            color=_COLOURS[row["algorithm"]],
            linestyle="--" if row["lr"] == 0.14 else "-",
            linewidth=1.3,
            label=label if number == 0 else None,
        )
