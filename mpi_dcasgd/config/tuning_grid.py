"""The grid of a study's ``tune``: values written out, the budget, and a sample of combinations."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from typing import Any

from mpi_dcasgd.config.load import Override
from mpi_dcasgd.config.tuning_settings import TuneSettings
from mpi_dcasgd.counts import is_whole
from mpi_dcasgd.messages import seen

_POWERS = ("base", "factor", "steps")
_MOST_VALUES = 1000


def values_of(grid: Mapping[str, Any], problems: list[str]) -> dict[str, tuple[Any, ...]]:
    """The values of each key, written out."""
    found: dict[str, tuple[Any, ...]] = {}
    for key, value in grid.items():
        values = _powers(value) if isinstance(value, Mapping) else value
        if not isinstance(values, (list, tuple)) or not values:
            problems.append(
                f"tune.grid.{key}: got {seen(value)}; allowed: a list of values, or "
                "{base: 0.1, factor: 2, steps: 5} with factor > 0 other than 1 and up to "
                f"{_MOST_VALUES} steps"
            )
        elif any(values.count(one) > 1 for one in values):
            problems.append(f"tune.grid.{key}: got {seen(value)}; allowed: each value once")
        else:
            found[key] = tuple(values)
    return found


def _powers(value: Mapping[str, Any]) -> list[float] | None:
    """``base``, ``base * factor``, ... of ``steps`` values; None if the value is no such range."""
    if set(value) != set(_POWERS):
        return None
    base, factor, steps = (value[key] for key in _POWERS)
    numbers = all(type(number) in (int, float) for number in (base, factor))
    if not numbers or not is_whole(steps) or int(steps) > _MOST_VALUES:
        return None
    if not base > 0 or not factor > 0 or factor == 1:
        return None
    try:
        # Rounded, so that 0.1 * 2 * 2 * 2 is what a person would have written.
        return [float(f"{base * factor**step:.12g}") for step in range(int(steps))]
    except OverflowError:
        return None


def budget_of(
    tune: TuneSettings,
    grids: Mapping[str, Mapping[str, tuple[Any, ...]]],
    problems: list[str],
) -> int:
    """Return the tuning runs of each algorithm: those asked for, or the size of the least grid."""
    sizes = {label: _size(grid) for label, grid in grids.items()}
    label = min(sizes, key=lambda one: sizes[one])
    if tune.runs is not None and tune.runs > sizes[label]:
        problems.append(
            f"tune.runs: got {tune.runs}, but the grid of {label} has {sizes[label]}; every "
            "algorithm has the same budget, so give its keys more values or lower runs"
        )
    return min(tune.runs or sizes[label], sizes[label])


def _size(grid: Mapping[str, tuple[Any, ...]]) -> int:
    size = 1
    for values in grid.values():
        size *= len(values)
    return size


def sample(
    grid: Mapping[str, tuple[Any, ...]], size: int, choice: random.Random
) -> list[tuple[Override, ...]]:
    """Draw different combinations in which the values of each key are as frequent as can be."""
    every = [tuple(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    for _ in range(1000):
        columns = []
        for values in grid.values():
            shuffled = choice.sample(range(len(values)), len(values))
            column = [shuffled[row % len(values)] for row in range(size)]
            columns.append(choice.sample(column, size))
        rows = sorted(set(zip(*columns, strict=True)))
        if len(rows) == size:
            return [
                tuple((key, grid[key][place]) for key, place in zip(grid, row, strict=True))
                for row in rows
            ]
    return [every[place] for place in sorted(choice.sample(range(len(every)), size))]
