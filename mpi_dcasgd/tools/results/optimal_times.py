"""Do Ringmaster and Rennala use thousands of unequal workers better than a delay-adaptive step?

The published quadratic with 1,729 unknowns and 6,174 workers, for 2,000 virtual seconds, with one
random number as the noise of a gradient, as in the authors' program, and with one a coordinate, as
in the paper's text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from mpi_dcasgd.tools.bench.spread import table
from mpi_dcasgd.tools.results.kept import Kept
from mpi_dcasgd.tools.results.means import Mean, chosen
from mpi_dcasgd.tools.results.runs import compared
from mpi_dcasgd.tools.results.studies import Page, Row

NOISES = {"scalar": "one number", "independent": "one a coordinate"}
_METRICS = ("f_gap", "grad_sq")
_COLOURS = {"ringmaster": "#E69F00", "rennala": "#56B4E9", "adaptive-asgd": "#009E73"}


def run(kept: Kept, short: bool) -> list[Row]:
    """Make the runs that are missing; see ``StudyModule``."""
    changes: dict[str, Any] | None = None
    if short:
        changes = {"seeds": [1], "cluster": {"delays": "square-root", "until_s": 200}}
    rows = []
    for noise in NOISES:
        name = f"optimal-times-{noise}"
        found = compared(kept, name, _METRICS, changes=changes, points=30)
        rows += [{"noise": noise, **row} for row in found]
    return rows


def page(rows: Sequence[Row]) -> Page:
    """Make tables and plots; see ``StudyModule``."""
    return Page({"gaps": _gaps(rows)}, {"gaps": partial(_draw, rows)})


def _arms(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["noise"], row["algorithm"]) for row in rows))


def _gaps(rows: Sequence[Row]) -> str:
    lines = []
    for noise, algorithm in _arms(rows):
        mine = chosen(rows, noise=noise, algorithm=algorithm)
        lines.append(
            [
                NOISES[noise],
                f"`{algorithm}`",
                f"{mine[0]['lr']:g}",
                *(Mean.of([row[key] for row in mine]).show() for key in _METRICS),
                *(
                    Mean.of([row[key] for row in mine]).show("{:,.0f}".format)
                    for key in ("updates", "dropped")
                ),
                f"{max(row['staleness_max'] for row in mine):,}",
                str(len(mine)),
            ]
        )
    heads = ["noise", "algorithm", "lr", "f - f*", "squared gradient", "updates", "dropped"]
    return table([*heads, "largest staleness", "seeds"], lines, words=2)


def _draw(rows: Sequence[Row], figure: Any) -> None:
    figure.set_size_inches(10, 4)
    axes = figure.subplots(1, len(NOISES), sharey=True)
    for axis, (noise, words) in zip(axes, NOISES.items(), strict=True):
        for its, algorithm in _arms(rows):
            if its != noise:
                continue
            for number, row in enumerate(chosen(rows, noise=noise, algorithm=algorithm)):
                axis.plot(
                    [time for _, time, _ in row["curve"]],
                    [gap for _, _, gap in row["curve"]],
                    color=_COLOURS[algorithm],
                    linewidth=1.3,
                    label=f"{algorithm}, lr {row['lr']:g}" if number == 0 else None,
                )
        axis.set_yscale("log")
        axis.set_title(f"noise: {words}", loc="left")
        axis.set_xlabel("virtual seconds")
        axis.legend(loc="upper right", fontsize=9)
    axes[0].set_ylabel("f - f*")
