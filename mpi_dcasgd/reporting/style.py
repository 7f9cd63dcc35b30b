"""The look of plots: a colour for each algorithm, simulated runs told from real ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mpi_dcasgd.reporting.groups import Group

_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255")
"""Okabe and Ito's colours, told apart with any colour vision; yellow is too pale on white."""

_FIXED = {"ssgd": 0, "asgd": 1, "dcasgd-c": 2, "dcasgd-a": 3}
"""The algorithms that have the same colour in every report."""

_REFERENCE = "#000000"
_DASHES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")

FIRST_SCREEN_WIDTH = 6.4
"""Inches of the pictures on the first screen: letters can still be read on a phone."""

STYLE: Any = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "axes.titlesize": 12,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.markersize": 4.5,
}
"""Settings of matplotlib."""


class Colours:
    """A colour per algorithm, the same in all pictures; dashes for its further settings."""

    def __init__(self, groups: Sequence[Group]) -> None:
        present = dict.fromkeys(group.algorithm for group in groups if not group.sequential)
        free = [number for number in range(len(_PALETTE)) if number not in _FIXED.values()]
        others = [name for name in present if name not in _FIXED]
        # With more algorithms than colours they come round again, with other markers.
        self._numbers = _FIXED | {
            name: free[place] if place < len(free) else len(_PALETTE) + place
            for place, name in enumerate(others)
        }
        self._variants: dict[str, list[Any]] = {}
        for group in groups:
            variants = self._variants.setdefault(group.algorithm, [])
            if self._variant(group) not in variants:
                variants.append(self._variant(group))

    def name(self, group: Group) -> str:
        """Legend entry: the label without the number of workers."""
        return ", ".join(
            p for p in group.label.split(", ") if not p.endswith((" worker", " workers"))
        )

    def of(self, group: Group) -> dict[str, Any]:
        """Line style of a group; simulated ones are thin, dashed and hollow."""
        variant = self._variants[group.algorithm].index(self._variant(group))
        dashes = _DASHES[variant % len(_DASHES)]
        if group.sequential:
            return {"color": _REFERENCE, "linestyle": dashes}
        number = self._numbers[group.algorithm]
        colour = _PALETTE[number % len(_PALETTE)]
        marker = _MARKERS[(number + variant) % len(_MARKERS)]
        style: dict[str, Any] = {"color": colour, "linestyle": dashes, "marker": marker}
        if group.simulated:
            style |= {"linestyle": (0, (4, 2)), "linewidth": 1.3, "markerfacecolor": "white"}
        return style

    def _variant(self, group: Group) -> Any:
        return group.settings, "" if group.simulated else group.manner


def title(figure: Any, text: str) -> None:
    """Write the title of a picture."""
    # To the left: in the middle it would run into the legend.
    figure.suptitle(text, x=0.01, ha="left", fontsize=12, wrap=True)


def legend_below(figure: Any, lines: Sequence[Any], labels: Sequence[str]) -> None:
    """Put a legend below a picture, in as many columns as there is room for."""
    longest = max(map(len, labels), default=1)
    columns = max(1, min(len(labels), int(FIRST_SCREEN_WIDTH / (0.75 + 0.09 * longest))))
    figure.legend(lines, labels, loc="outside lower center", ncols=columns)


def against_workers(axis: Any, sizes: Sequence[int], what: str) -> None:
    """Scale the axes of a picture against the number of workers, both in logarithms.

    Args:
        axis: Where it has been drawn.
        sizes: Numbers of workers.
        what: Name of the other axis.
    """
    from matplotlib.ticker import LogLocator

    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axis.minorticks_off()
    axis.set_xlabel("workers")
    axis.set_ylabel(what)


def by_variant(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Groups that differ in nothing but their number of workers, by what a legend says."""
    colours = Colours(groups)
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(colours.name(group), []).append(group)
    return found
