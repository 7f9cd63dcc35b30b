"""Checks of the attributes by which a task describes itself, before anything is made of it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mpi_dcasgd.counts import allowed_whole, is_whole
from mpi_dcasgd.errors import ConfigError, did_you_mean
from mpi_dcasgd.learning.near_hooks import NEEDED, near_hooks
from mpi_dcasgd.learning.task import Task
from mpi_dcasgd.messages import shown

_ALIKE = 0.9


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _are_units(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(word, str) for pair in value.items() for word in pair
    )


_DECLARED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "primary_metric": (_is_name, "the name of a metric, such as 'accuracy'"),
    "higher_is_better": (_is_bool, "True or False"),
    "units": (_are_units, "a dictionary of texts by metric, such as {'accuracy': '%'}"),
    "evaluation_draws": (_is_bool, "True or False"),
    "capturable": (_is_bool, "True or False"),
    "evaluation_batch": (is_whole, allowed_whole()),
}


DECLARED = tuple(_DECLARED)
"""Names of the attributes by which a task describes itself."""


def check_declared(task: Task) -> None:
    """Refuse a task whose attributes are not of their kinds, or are nearly called like one.

    Nor may a method that a task needs be missing where one is nearly called like it.

    Raises:
        ConfigError: With all problems.
    """
    problems = [
        f"{name}: got {shown(getattr(task, name))}; allowed: {allowed}"
        for name, (is_one, allowed) in _DECLARED.items()
        if not is_one(getattr(task, name))
    ]
    for name in _own_names(task):
        close = difflib.get_close_matches(name, _DECLARED, n=1, cutoff=_ALIKE)
        if close and name not in _DECLARED:
            problems.append(f"{name}: nothing reads it{did_you_mean(name, _DECLARED)}")
    problems += [
        f"{name}: nothing calls it, and {hook} is missing; did you mean {hook}?"
        for name, hook in near_hooks(task).items()
        if hook in NEEDED
    ]
    if problems:
        raise ConfigError(type(task).__name__, problems)


def check_units(task: Task, metrics: Sequence[str]) -> None:
    """Refuse units of metrics that a task does not compute.

    Args:
        task: Its attributes have been checked.
        metrics: Names of those that it does.

    Raises:
        ConfigError: With all problems.
    """
    there = ", ".join(metrics)
    problems = [
        f"units.{name}: no such metric (there are: {there}){did_you_mean(name, metrics)}"
        for name in task.units
        if name not in metrics
    ]
    if problems:
        raise ConfigError(type(task).__name__, problems)


def _own_names(task: Task) -> list[str]:
    """Names in the bodies of the user's classes that are no methods, nor settings of the task."""
    found: list[str] = []
    for kind in type(task).__mro__:
        if kind is Task:
            break
        settings = getattr(kind, "__annotations__", {})
        found += [
            name
            for name, value in vars(kind).items()
            if not name.startswith("_") and name not in settings and not callable(value)
        ]
    return found
