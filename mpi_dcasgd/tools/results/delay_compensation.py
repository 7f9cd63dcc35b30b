"""Does delay compensation make up for delay, as Zheng et al. (2017) say?

Fashion-MNIST and a small network with BatchNorm, simulated with real gradients: learning rate and
lambda tuned for each algorithm with the same number of runs, then five fresh seeds; what lambda,
the reading of the mean square, momentum and a warm-up of the rate do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mpi_dcasgd.tools.bench.spread import table
from mpi_dcasgd.tools.results.compensation_rows import part_rows
from mpi_dcasgd.tools.results.compensation_tables import against, beside, errors_of, percent
from mpi_dcasgd.tools.results.delay_compensation_plots import draw_errors, draw_rates
from mpi_dcasgd.tools.results.kept import Kept
from mpi_dcasgd.tools.results.made_up import like_fashion_mnist
from mpi_dcasgd.tools.results.means import chosen
from mpi_dcasgd.tools.results.studies import Page, Row

TARGET = 0.18
"""Test error whose time is told."""

_TICKS = (15, 20, 30, 50, 90)
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
    instead = like_fashion_mnist(kept, validation=0.1) if short else None
    for part in _SHORT if short else _PARTS:
        changes = dict(_SHORT[part]) if short else None
        if changes and instead:
            changes["set"] = {"data": instead}
        rows += part_rows(
            kept,
            f"delay-compensation-{part}",
            part,
            tuned=part in _TUNED,
            changes=changes,
            only=_SHORT_ONLY.get(part) if short else None,
        )
    return rows


def page(rows: Sequence[Row]) -> Page:
    """Make tables and plots; see ``StudyModule``."""
    tables = {part: errors_of(rows, part, TARGET) for part in _TUNED} | {
        "lambda": _lambdas(rows),
        "warmup": _warmup(rows),
        "momentum": _momentum(rows),
        "beside": beside(rows),
    }
    return Page(
        # A short form leaves parts out.
        {name: text for name, text in tables.items() if len(text.splitlines()) > 2},
        {"errors": partial(draw_errors, rows), "rates": partial(draw_rates, rows, _TICKS)},
    )


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
        lines.append([*line, percent(without), percent(warmed), against(warmed, without)])
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
