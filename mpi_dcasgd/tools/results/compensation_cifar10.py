"""Does delay compensation make up for delay on CIFAR-10, with a small convolutional network?

Simulated with real gradients: learning rate and lambda tuned for each algorithm with the same
number of runs, then five fresh seeds, for 4 to 32 equal and unequal workers. The images are in
cifar10.npz where it is run (docs/data.md says how it is made); the short form makes up its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mpi_dcasgd.tools.results.compensation_rows import part_rows
from mpi_dcasgd.tools.results.compensation_tables import beside, errors_of
from mpi_dcasgd.tools.results.delay_compensation_plots import draw_errors, draw_rates
from mpi_dcasgd.tools.results.kept import Kept
from mpi_dcasgd.tools.results.made_up import made_up
from mpi_dcasgd.tools.results.studies import Page, Row

TARGET = 0.5
"""Test error whose time is told."""

_TICKS = (40, 45, 50, 60, 90)
_PARTS = ("unequal", "equal")
_SHORT: Mapping[str, Any] = {
    "workers": [16],
    "seeds": [0, 1],
    "tune": {"grid": {"lr": [0.01, 0.1]}, "seed": 100},
    "set": {"data": made_up((3, 32, 32), validation=0.1)},
}


def run(kept: Kept, short: bool) -> list[Row]:
    """Make the runs that are missing; see ``StudyModule``."""
    rows: list[Row] = []
    for part in _PARTS:
        name = f"compensation-cifar10-{part}"
        rows += part_rows(kept, name, part, tuned=True, changes=_SHORT if short else None)
    return rows


def page(rows: Sequence[Row]) -> Page:
    """Make tables and plots; see ``StudyModule``."""
    tables = {part: errors_of(rows, part, TARGET) for part in _PARTS}
    return Page(
        {**tables, "beside": beside(rows)},
        {"errors": partial(draw_errors, rows), "rates": partial(draw_rates, rows, _TICKS)},
    )
