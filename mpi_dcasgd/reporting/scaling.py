"""Time to a target against workers, with perfect scaling drawn in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mpi_dcasgd.reporting.effort import seconds_to
from mpi_dcasgd.reporting.groups import Group, Stat
from mpi_dcasgd.reporting.style import (
    FIRST_SCREEN_WIDTH,
    Colours,
    against_workers,
    by_variant,
    legend_below,
    title,
)

Measured = list[tuple[Group, Stat]]


def measured(groups: Sequence[Group], target: float) -> dict[str, Measured]:
    """The rows that reached a target in all their runs, by what a legend says of them."""
    found: dict[str, Measured] = {}
    for name, members in by_variant(groups).items():
        for group in members:
            stat = Stat.of(seconds_to(run, target) for run in group.runs)
            if stat is not None and stat.n == len(group.runs) and stat.mean > 0:
                found.setdefault(name, []).append((group, stat))
    return found


def scales(groups: Sequence[Group], target: float) -> bool:
    """Return whether a target was reached with several numbers of workers."""
    reached = measured(groups, target).values()
    return len({group.num_workers for rows in reached for group, _ in rows}) > 1


def draw_scaling(
    figure: Any, groups: Sequence[Group], setting: str, target: float, reached: str
) -> None:
    """Draw the seconds to a target.

    Args:
        figure: Empty.
        groups: Rows whose seconds can be compared.
        setting: What all runs have in common.
        target: Value of the primary metric.
        reached: The same in words.
    """
    colours, rows = Colours(groups), measured(groups, target)
    figure.set_size_inches(FIRST_SCREEN_WIDTH, 4.5)
    axis = figure.subplots()
    everything = [pair for pairs in rows.values() for pair in pairs]
    sizes = sorted({group.num_workers for group, _ in everything})
    first = _reference(everything)
    axis.plot(
        sizes,
        [first[1].mean * first[0].num_workers / size for size in sizes],
        color="#999999",
        linewidth=1,
        linestyle="--",
        label="perfect scaling",
    )
    for name, pairs in rows.items():
        axis.errorbar(
            [group.num_workers for group, _ in pairs],
            [stat.mean for _, stat in pairs],
            yerr=[stat.std or 0.0 for _, stat in pairs],
            **{"marker": "s", **colours.of(pairs[0][0])},
            capsize=3,
            label=name,
        )
    against_workers(axis, sizes, "seconds")
    name = first[0].label
    text = f"Seconds to {reached}: {setting}\nperfect scaling: from {name}, time × workers constant"
    title(figure, text)
    legend_below(figure, *axis.get_legend_handles_labels())


def _reference(rows: Measured) -> tuple[Group, Stat]:
    """The row that perfect scaling starts from: of the fewest workers the soonest."""
    return min(rows, key=lambda row: (row[0].num_workers, row[1].mean))
