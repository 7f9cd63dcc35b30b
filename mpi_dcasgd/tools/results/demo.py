"""Who waits for whom, and what does delay do to training?

What `make demo` runs in a minute or two: real runs with a slow worker, and simulated ones with
32 workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import mpi_dcasgd
from mpi_dcasgd.tools.bench.spread import table
from mpi_dcasgd.tools.results.delay_compensation_plots import COLOURS, MARKERS
from mpi_dcasgd.tools.results.kept import Kept
from mpi_dcasgd.tools.results.means import Mean, chosen
from mpi_dcasgd.tools.results.runs import compared
from mpi_dcasgd.tools.results.studies import Page, Row

_RATES, _SLOW = "demo-rates", "demo-slow-worker"
_NAMES = {"ssgd": "ssgd (Horovod)", "asgd": "asgd"}
_COMPUTE, _WAIT = "#009E73", "#d0d0d0"


def run(kept: Kept, short: bool) -> list[Row]:
    """Make the runs that are missing; see ``StudyModule``."""
    slow = compared(kept, _SLOW, ("error",), more=_of_workers, show=kept.show)
    changes = {"seeds": [0]} if short else None
    rates = compared(kept, _RATES, ("error",), changes=changes, in_process=True, show=kept.show)
    return [{"part": "slow", **row} for row in slow] + [{"part": "rates", **row} for row in rates]


def _of_workers(run: mpi_dcasgd.Run) -> Row:
    """Return the seconds that each worker spent on each thing."""
    totals = sorted(run.metrics("worker"), key=lambda one: one["worker"])
    return {
        "samples_per_s": round(run.summary["samples_per_s"], 1),
        "gradients": [one["updates"] for one in totals],
        "busy_s": [round(one["compute_s"] + one["data_s"], 2) for one in totals],
    }


def page(rows: Sequence[Row]) -> Page:
    """Make tables and plots; see ``StudyModule``."""
    return Page(
        {"slow": _slow_table(rows), "rates": _rates_table(rows)},
        {"picture": partial(_draw, rows)},
    )


def _slow_table(rows: Sequence[Row]) -> str:
    lines = []
    for row in chosen(rows, part="slow"):
        waits = [1 - busy / row["time_s"] for busy in row["busy_s"]]
        lines.append(
            [
                _NAMES[row["algorithm"]],
                f"{row['samples_per_s']:,.0f}",
                ", ".join(f"{wait:.0%}" for wait in waits),
                ", ".join(str(count) for count in row["gradients"]),
                str(row["staleness_max"]),
                f"{100 * row['error']:.1f}",
            ]
        )
    heads = ("algorithm", "samples/s", "each worker waits", "gradients of each")
    return table([*heads, "largest staleness", "test error %"], lines, words=1)


def _rates_table(rows: Sequence[Row]) -> str:
    mine = chosen(rows, part="rates")
    rates = sorted({row["lr"] for row in mine})
    lines = []
    for name in dict.fromkeys(row["algorithm"] for row in mine):
        its = [chosen(mine, algorithm=name, lr=rate) for rate in rates]
        lines.append([f"`{name}`", *(_error(arm) for arm in its), str(max(map(len, its)))])
    return table(["algorithm", *(f"lr {rate:g}" for rate in rates), "seeds"], lines, words=1)


def _error(arm: Sequence[Row]) -> str:
    errors = [100 * row["error"] for row in arm if row["error"] is not None]
    return Mean.of(errors).show("{:.1f}".format) if errors else ""


def _draw(rows: Sequence[Row], figure: Any) -> None:
    figure.set_size_inches(10, 3.9)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _draw_slow(chosen(rows, part="slow"), left)
    _draw_rates(chosen(rows, part="rates"), right)


def _draw_slow(rows: Sequence[Row], axis: Any) -> None:
    """A bar a worker: the share of its time in which it computes, and in which it waits."""
    places, names = [], []
    for number, row in enumerate(rows):
        slow = _slowest(row)
        above = number * (len(row["busy_s"]) + 1.2)
        head = f"{_NAMES[row['algorithm']]}: {row['samples_per_s']:,.0f} samples/s"
        axis.text(0, above - 0.55, head, va="bottom", fontsize=11)
        for worker, busy in enumerate(row["busy_s"]):
            share = 100 * busy / row["time_s"]
            axis.barh(above + worker, share, color=_COMPUTE)
            axis.barh(above + worker, 100 - share, left=share, color=_WAIT)
            places.append(above + worker)
            names.append(f"worker {worker}{', 4x slower' if worker == slow else ''}")
    axis.set_yticks(places, names)
    axis.set_ylim(max(places, default=0) + 0.6, -1.3)
    axis.grid(visible=False)
    axis.set_xlim(0, 100)
    axis.set_xlabel("% of its time: computes (green), waits (grey)")
    axis.set_title("Four real workers, one of them slow", loc="left")


def _slowest(row: Row) -> int:
    """The worker that took longest for a gradient."""
    each = [busy / count for busy, count in zip(row["busy_s"], row["gradients"], strict=True)]
    return each.index(max(each))


def _draw_rates(rows: Sequence[Row], axis: Any) -> None:
    names = dict.fromkeys(row["algorithm"] for row in rows)
    for name in names:
        mine = chosen(rows, algorithm=name)
        rates = sorted({row["lr"] for row in mine})
        means = [100 * sum(r["error"] for r in arm) / len(arm) for arm in _arms(mine, rates)]
        if name == "sgd":
            axis.axhline(means[0], color="black", linewidth=1.3, label="sgd, alone")
            continue
        axis.plot(rates, means, color=COLOURS[name], marker=MARKERS[name], label=name)
    rates = sorted({row["lr"] for row in rows})
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axis.set_yticks([1, 2, 5, 10, 20, 50, 90], ["1", "2", "5", "10", "20", "50", "90"])
    axis.minorticks_off()
    axis.set_xlabel("learning rate")
    axis.set_ylabel("test error %")
    axis.set_title("32 simulated workers", loc="left")
    axis.legend(loc="upper left", fontsize=9)


def _arms(rows: Sequence[Row], rates: Sequence[float]) -> list[list[Row]]:
    return [chosen(rows, lr=rate) for rate in rates]
