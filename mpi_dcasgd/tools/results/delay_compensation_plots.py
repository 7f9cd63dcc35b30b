"""Plots of the studies of delay compensation: errors against workers and against rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mpi_dcasgd.tools.results.means import Mean, chosen
from mpi_dcasgd.tools.results.studies import Row

COLOURS = {
    "sgd": "#000000",
    "ssgd": "#0072B2",
    "asgd": "#D55E00",
    "dcasgd-c": "#009E73",
    "dcasgd-a": "#CC79A7",
    "adaptive-asgd": "#E69F00",
}
MARKERS = {
    "sgd": "",
    "ssgd": "o",
    "asgd": "s",
    "dcasgd-c": "^",
    "dcasgd-a": "D",
    "adaptive-asgd": "v",
}
_TITLES = {"unequal": "unequal workers", "equal": "equal workers"}
_GUESS = 90.0
"""Error of a guess among ten classes, in per cent: where runs that diverge are drawn."""


def draw_errors(rows: Sequence[Row], figure: Any) -> None:
    """Draw tuned algorithms' test errors against workers, a panel for each kind of cluster."""
    present = [cluster for cluster in _TITLES if chosen(rows, part=cluster)]
    figure.set_size_inches(4.6 * max(1, len(present)), 3.9)
    axes = figure.subplots(1, max(1, len(present)), sharey=True, squeeze=False)[0]
    alone = [100 * row["error"] for row in chosen(rows, part="unequal", algorithm="sgd")]
    for axis, cluster in zip(axes, present, strict=False):
        mine = chosen(rows, part=cluster)
        if alone:
            axis.axhline(Mean.of(alone).mean, color="black", linewidth=1.3, label="sgd, alone")
        sizes = sorted({row["workers"] for row in mine if row["algorithm"] != "sgd"})
        names = [name for name in COLOURS if name != "sgd" and chosen(mine, algorithm=name)]
        for place, name in enumerate(names):
            _bars(axis, chosen(mine, algorithm=name), name, 2 ** (0.05 * (place - 1.5)))
        axis.set_xscale("log", base=2)
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.minorticks_off()
        axis.set_xlabel("workers")
        axis.set_title(_TITLES[cluster], loc="left")
    axes[0].set_ylabel("test error %")
    axes[0].legend(loc="upper left", fontsize=9)


def _bars(axis: Any, mine: Sequence[Row], name: str, shift: float) -> None:
    """Means and intervals of an algorithm, a little beside those of the others."""
    places, means, halves = [], [], []
    for size in sorted({row["workers"] for row in mine}):
        errors = [100 * row["error"] for row in chosen(mine, workers=size) if row["error"]]
        if errors:
            found = Mean.of(errors)
            places.append(size * shift)
            means.append(found.mean)
            halves.append(found.half or 0.0)
    axis.errorbar(
        places,
        means,
        halves,
        color=COLOURS[name],
        marker=MARKERS[name],
        linewidth=1.5,
        elinewidth=1.2,
        capsize=3,
        label=name,
    )


def draw_rates(rows: Sequence[Row], ticks: Sequence[int], figure: Any) -> None:
    """Draw all tuning runs with unequal workers: validation error against learning rate.

    Args:
        rows: Of the whole study.
        ticks: Errors that have a name on the axis, in per cent.
        figure: An empty one.
    """
    mine = [row for row in chosen(rows, part="unequal-tuning") if row["algorithm"] != "sgd"]
    sizes = sorted({row["workers"] for row in mine})
    figure.set_size_inches(max(1, len(sizes)) * 3.4 + 0.8, 3.7)
    axes = figure.subplots(1, max(1, len(sizes)), sharey=True, squeeze=False)[0]
    for axis, size in zip(axes, sizes, strict=False):
        for name in COLOURS:
            its = sorted(chosen(mine, algorithm=name, workers=size), key=lambda row: row["lr"])
            if its and name != "ssgd":
                axis.plot(
                    [row["lr"] for row in its],
                    [_percent(row["validation_error"]) for row in its],
                    color=COLOURS[name],
                    marker=MARKERS[name],
                    linewidth=1.5,
                    label=name,
                )
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_yticks(ticks, map(str, ticks))
        axis.minorticks_off()
        axis.set_xlabel("learning rate")
        axis.set_title(f"{size} workers", loc="left")
    axes[0].set_ylabel("validation error %")
    axes[0].legend(loc="upper left", fontsize=9)


def _percent(error: float | None) -> float:
    return _GUESS if error is None else 100 * error
