"""Where do delayed gradients leave a minimum, and is it where Giladi et al. (2020) say?

Largest stable rates on a quadratic, by bisection over simulated runs; the rate at which a small
network leaves a minimum; and test errors with the rate kept, scaled by the rule, and tuned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from mpi_dcasgd.tools.bench.spread import table
from mpi_dcasgd.tools.results.edge_minimum import left_at
from mpi_dcasgd.tools.results.edge_quadratic import MOMENTA, predicted, stable_below
from mpi_dcasgd.tools.results.kept import Kept
from mpi_dcasgd.tools.results.made_up import like_fashion_mnist, made_up
from mpi_dcasgd.tools.results.means import Mean, chosen
from mpi_dcasgd.tools.results.runs import compared
from mpi_dcasgd.tools.results.studies import Page, Row

_DELAYS = (0, 1, 2, 4, 8, 16, 32, 64)
_NET_DELAYS = (0, 1, 2, 4, 8, 16)
_TUNED, _KEPT = "stabilitys-edge-tuned", "stabilitys-edge-kept"
_METRICS = ("error",)
_COLOURS = {"none": "#0072B2", "heavy-ball": "#D55E00", "shifted": "#009E73", "net": "#CC79A7"}


def run(kept: Kept, short: bool) -> list[Row]:
    """Make the runs that are missing; see ``StudyModule``."""
    rows = []
    for momentum in MOMENTA:
        for delay in (0, 1, 4) if short else _DELAYS:
            key = {"part": "quadratic", "momentum": momentum, "staleness": delay}
            make = partial(stable_below, kept.folder, momentum, delay, 0.1 if short else 0.02)
            rows.append(kept.row(key, make))
    # As many samples as the job of the minimum has.
    few = like_fashion_mnist(kept, num_train=500, validation=0) if short else None
    for delay in (0, 2) if short else _NET_DELAYS:
        key = {"part": "minimum", "staleness": delay, **({"data": few["name"]} if few else {})}
        make = partial(left_at, kept.folder, delay, 1.2 if short else 1.03, few)
        rows.append(kept.row(key, make))
    changes: Any = {"seeds": [1], "set": {"epochs": 1}} if short else None
    if few:
        changes["set"]["data"] = made_up((1, 28, 28), validation=0.1)
    tuned = changes and {
        **changes,
        "tune": {"grid": {"lr": [0.0125, 0.05]}, "seed": 100},
        "workers": [8],
    }
    for name, its in ((_TUNED, tuned), (_KEPT, changes)):
        rows += [{"part": "error", **row} for row in compared(kept, name, _METRICS, changes=its)]
    return rows


def page(rows: Sequence[Row]) -> Page:
    """Make tables and plots; see ``StudyModule``."""
    return Page(
        {
            "quadratic": _quadratic(chosen(rows, part="quadratic")),
            "minimum": _minimum(chosen(rows, part="minimum")),
            "error": _errors(chosen(rows, part="error")),
        },
        {"rates": partial(_draw, rows)},
    )


def _quadratic(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        found, closed = row["stable"], predicted(row["momentum"], row["staleness"])
        lines.append(
            [
                MOMENTA[row["momentum"]],
                str(row["staleness"]),
                f"{found:.4f}",
                f"{closed:.4f}",
                f"{100 * (found / closed - 1):+.1f} %",
                str(row["runs"]),
            ]
        )
    heads = ["momentum", "staleness", "found", "formula", "difference", "runs"]
    return table(heads, lines, words=1)


def _minimum(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        found, closed = row["leaves"], predicted("none", row["staleness"]) / row["curvature"]
        lines.append(
            [
                str(row["staleness"]),
                f"{found:.5f}",
                f"{closed:.5f}",
                f"{100 * (found / closed - 1):+.1f} %",
                f"{row['curvature']:.2f}",
                f"{row['runs']}",
            ]
        )
    heads = ["staleness", "leaves at lr", "formula", "difference"]
    return table([*heads, "curvature", "runs"], lines, words=0)


def _errors(rows: Sequence[Row]) -> str:
    lines = []
    for workers, study, algorithm, lr in _arms(rows):
        mine = chosen(rows, study=study, workers=workers, algorithm=algorithm, lr=lr)
        how = "tuned" if study == _TUNED else "kept" if algorithm == "asgd" else "by the rule"
        factor = predicted("none", workers - 1) / 2 if algorithm == "stable-asgd" else 1.0
        lines.append(
            [
                f"{workers} {'worker' if workers == 1 else 'workers'}",
                how,
                f"{lr * factor:.3g}",
                _mean(mine, "error", lambda value: f"{100 * value:.2f} %"),
                str(len(mine)),
            ]
        )
    heads = ["", "rate", "lr", "test error", "seeds"]
    return table(heads, lines, words=2)


def _arms(rows: Sequence[Row]) -> list[tuple[int, str, str, float]]:
    """Workers, study, algorithm and rate of the arms, each once: kept, by the rule, tuned."""
    order = {("asgd", _KEPT): 0, ("stable-asgd", _KEPT): 1}
    arms = {(row["workers"], row["study"], row["algorithm"], row["lr"]) for row in rows}
    return sorted(arms, key=lambda arm: (arm[0], order.get((arm[2], arm[1]), 2)))


def _mean(rows: Sequence[Row], key: str, form: Callable[[float], str]) -> str:
    values = [row[key] for row in rows if row[key] is not None]
    if not values:
        return "diverges"
    lost = len(rows) - len(values)
    return Mean.of(values).show(form) + (f"; {lost} diverge" if lost else "")


def _draw(rows: Sequence[Row], figure: Any) -> None:
    figure.set_size_inches(8, 4.5)
    axes = figure.subplots()
    quadratic = chosen(rows, part="quadratic")
    for momentum, words in MOMENTA.items():
        mine = chosen(quadratic, momentum=momentum)
        delays = [row["staleness"] for row in mine]
        closed = [predicted(momentum, delay) for delay in delays]
        colour = _COLOURS[momentum]
        axes.plot(
            _places(delays), closed, color=colour, linewidth=1.3, label=f"formula, {_said(words)}"
        )
        axes.plot(_places(delays), [row["stable"] for row in mine], "o", color=colour)
    net = chosen(rows, part="minimum")
    axes.plot(
        _places([row["staleness"] for row in net]),
        [row["leaves"] * row["curvature"] for row in net],
        "D",
        color=_COLOURS["net"],
        markerfacecolor="none",
        markersize=9,
        label="network leaves its minimum",
    )
    axes.plot([], [], "o", color="#666666", label="quadratic diverges")
    shown = sorted({row["staleness"] for row in quadratic})
    axes.set_xticks(_places(shown), [str(delay) for delay in shown])
    axes.set_yscale("log")
    axes.set_xlabel("staleness (updates)")
    axes.set_ylabel("largest stable lr times curvature")
    axes.legend(loc="lower left", fontsize=10)


def _said(words: str) -> str:
    return "no momentum" if words == "none" else words.replace(",", " momentum")


def _places(delays: Sequence[int]) -> list[int]:
    """Places on an axis on which a delay that doubles is a step, and 0 has a place."""
    return [delay.bit_length() for delay in delays]
