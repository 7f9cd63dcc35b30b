"""Plots of the study of arbitrary delays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mpi_dcasgd.tools.results.means import chosen
from mpi_dcasgd.tools.results.studies import Row

_COLOURS = {"ssgd": "#0072B2", "asgd": "#D55E00", "adaptive-asgd": "#009E73"}
_DASHES = ("-", "--", "-.", ":")
START = 0.124
"""f - f* where training begins."""


def draw_gaps(rows: Sequence[Row], clusters: Mapping[str, str], figure: Any) -> None:
    """Draw f - f* against gradients, a panel a cluster, a line a run.

    Args:
        rows: Of runs on these clusters, with curves.
        clusters: Names, and what they are called.
        figure: An empty one.
    """
    figure.set_size_inches(10, 4)
    axes = figure.subplots(1, len(clusters), sharey=True)
    for axis, (cluster, title) in zip(axes, clusters.items(), strict=True):
        mine = chosen(rows, cluster=cluster)
        for algorithm, lr in dict.fromkeys((row["algorithm"], row["lr"]) for row in mine):
            _lines(axis, chosen(mine, algorithm=algorithm, lr=lr), f"{algorithm}, lr {lr:g}")
        axis.set_title(title, loc="left")
        axis.set_yscale("log")
        axis.set_ylim(1e-4, 100)
        axis.set_xlabel("thousands of gradients")
        axis.legend(loc="upper right", fontsize=9)
    axes[0].set_ylabel("f - f*")


def draw_slow(rows: Sequence[Row], factors: Sequence[int], figure: Any) -> None:
    """Draw f - f* with one slow worker, against gradients and against time.

    Args:
        rows: Of the study.
        factors: How many times slower it is.
        figure: An empty one.
    """
    figure.set_size_inches(10, 4)
    left, right = figure.subplots(1, 2, sharey=True)
    ssgd = chosen(rows, part="clusters", cluster="equal", algorithm="ssgd")
    for dashes, factor in zip(_DASHES, factors, strict=True):
        its = chosen(rows, part="slow", factor=factor)
        for algorithm in ("asgd", "adaptive-asgd"):
            curve = chosen(its, algorithm=algorithm)[0]["curve"]
            style = {"color": _COLOURS[algorithm], "linestyle": dashes, "linewidth": 1.5}
            gaps = [gap for _, _, gap in curve]
            left.plot([n / 1000 for n, _, _ in curve], gaps, **style)
            # Without the end, when nothing is left to do but to wait for the slow worker.
            right.plot([time for _, time, _ in curve[:-1]], gaps[:-1], **style)
        (step_s,) = (row["step_s"] for row in chosen(its, algorithm="ssgd"))
        style = {"color": _COLOURS["ssgd"], "linestyle": dashes, "linewidth": 1.5}
        for row in ssgd[:1]:
            curve = row["curve"]
            right.plot([n * step_s for n, _, _ in curve], [gap for _, _, gap in curve], **style)
            if factor == 1:
                left.plot([n * 40 / 1000 for n, _, _ in curve], [gap for *_, gap in curve], **style)
    for axis, what in ((left, "thousands of gradients"), (right, "virtual seconds")):
        axis.set_yscale("log")
        axis.set_xlabel(what)
    most = max(
        (n for row in chosen(rows, part="slow") for n, *_ in row.get("curve", ())), default=1
    )
    left.set_xlim(0, most / 1000)
    right.set_xscale("log")
    left.set_ylabel("f - f*")
    for algorithm, colour in _COLOURS.items():
        left.plot([], [], color=colour, label=algorithm)
    for dashes, factor in zip(_DASHES, factors, strict=True):
        right.plot([], [], color="#555555", linestyle=dashes, label=f"{factor:,} times")
    left.set_ylim(top=0.3)
    left.legend(loc="upper right", fontsize=9)
    right.legend(loc="upper right", fontsize=9, ncols=2, title="one worker slower by")


def _lines(axis: Any, rows: Sequence[Row], label: str) -> None:
    for number, row in enumerate(rows):
        # A step of ssgd takes a gradient of every worker.
        each = row["workers"] if row["algorithm"] == "ssgd" else 1
        curve = [(0, 0, START), *row["curve"]]
        points = [(n * each / 1000, gap) for n, _, gap in curve if gap is not None]
        axis.plot(
            [n for n, _ in points],
            [gap for _, gap in points],
            color=_COLOURS[row["algorithm"]],
            linestyle="--" if row["lr"] == 0.14 else "-",
            linewidth=1.3,
            label=label if number == 0 else None,
        )
