"""The studies by name. A study is a module of this package and a page in docs/results."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from mpi_dcasgd.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from mpi_dcasgd.tools.results.kept import Kept

Row = dict[str, Any]
"""One run: plain values by name, as JSON has them."""

STUDIES: dict[str, str] = {
    "arbitrary-delays": "arbitrary_delays",
    "optimal-times": "optimal_times",
    "stabilitys-edge": "stabilitys_edge",
    "delay-compensation": "delay_compensation",
    "compensation-cifar10": "compensation_cifar10",
    "sync-or-async": "sync_or_async",
    "imagenet-path": "imagenet_path",
    "demo": "demo",
}
"""Name of a study to its module in this package."""


@dataclass(frozen=True)
class Page:
    """Tables and plots that a study's page shows of its runs.

    Attributes:
        tables: Markdown by name; a page has a place for each.
        plots: What draws a picture into an empty figure of matplotlib, by name; the file is
            ``STUDY-NAME.svg``.
    """

    tables: Mapping[str, str]
    plots: Mapping[str, Callable[[Any], None]] = field(default_factory=dict)


class StudyModule(Protocol):
    """Functions of a study's module; its docstring's first line is the question."""

    def run(self, kept: Kept, short: bool) -> list[Row]:
        """Make the runs that are missing.

        Args:
            kept: Where finished runs are kept, and the folder for everything else.
            short: Make the short form: a few runs of each kind, of which some are cut short.

        Returns:
            The rows of all runs, in the order of the tables.
        """

    def page(self, rows: Sequence[Row]) -> Page:
        """Make tables and plots, from the rows of a full or a short form."""


def study(name: str) -> StudyModule:
    """Return a study's module.

    Raises:
        UserError: There is no study of this name.

    Example:
        >>> study("arbitrary-delays").page.__name__
        'page'
    """
    if name not in STUDIES:
        raise UserError(
            f"{name}: there is no such study{did_you_mean(name, STUDIES)}; there are "
            f"{', '.join(STUDIES)}"
        )
    return cast(StudyModule, importlib.import_module(f"{__package__}.{STUDIES[name]}"))
