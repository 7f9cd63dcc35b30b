"""Methods of a user's task that nothing calls, and that look like ones that training would.

A class may have methods of its own. So one is told only if the method of ``Task`` that it looks
like is not overridden, and no code of its module mentions it; and it is no mistake by itself.
"""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Iterator
from functools import cached_property
from types import CodeType, FunctionType
from typing import Any

from mpi_dcasgd.learning.task import Task

HOOKS = tuple(
    name
    for name, found in vars(Task).items()
    if inspect.isfunction(found) and not name.startswith("_")
)
"""The methods that training calls."""

NEEDED = ("model", "train_data", "test_data", "loss")
"""Those without a default."""

_ALIKE = 0.85  # metric and metrics, derive and derived; not train_sampler and train_data
_ELSEWHERE = {
    other: hook
    for hook, others in {
        "model": ("build_model", "make_model", "get_model", "create_model"),
        "train_data": ("train_set", "train_dataset", "training_data", "train_dataloader"),
        "test_data": ("test_set", "test_dataset", "test_dataloader"),
        "validation_data": (
            *("validation_set", "validation_dataset", "val_data", "val_set", "val_dataset"),
            "val_dataloader",
        ),
        "loss": ("compute_loss", "loss_fn", "loss_function", "training_step"),
        "metrics": ("compute_metrics", "validation_step", "test_step"),
        "collate": ("collate_fn",),
    }.items()
    for other in others
}
"""What other libraries call them."""

_NOWHERE = {
    **dict.fromkeys(
        ("sampler", "train_sampler", "batch_sampler"),
        "which samples a minibatch has follows from the job's seed and its place in the run",
    ),
    **dict.fromkeys(
        ("optimizer", "configure_optimizers"), "the job's algorithm and rule make the steps"
    ),
}
"""What other libraries ask for and there is nothing like here."""


def near_hooks(task: Task) -> dict[str, str]:
    """Find the methods of a task that nothing calls, and what each was probably meant to be.

    Example:
        >>> class Line(Task):
        ...     def metric(self, model, batch):
        ...         return {}
        >>> near_hooks(Line())
        {'metric': 'metrics'}
    """
    kinds = _own_kinds(task)
    open_ = [hook for hook in HOOKS if not _overridden(task, hook)]
    found = {
        name: near for name in _methods(kinds) if (near := _near(name, open_)) and name not in HOOKS
    }
    return {name: near for name, near in found.items() if name not in _mentioned(kinds)}


def unread(task: Task) -> list[str]:
    """Say of which methods of a task training makes no use, though they look as if it would."""
    own = type(task).__name__
    kinds = _own_kinds(task)
    lines = [
        f"{own}.{name}: nothing calls it; did you mean {near}?"
        for name, near in near_hooks(task).items()
    ]
    names = [name for name in _methods(kinds) if name in _NOWHERE]
    return lines + [
        f"{own}.{name}: nothing calls it; {_NOWHERE[name]}"
        for name in names
        if name not in _mentioned(kinds)
    ]


def _near(name: str, hooks: list[str]) -> str:
    if name in _ELSEWHERE:
        return _ELSEWHERE[name] if _ELSEWHERE[name] in hooks else ""
    close = difflib.get_close_matches(name, hooks, n=1, cutoff=_ALIKE)
    return close[0] if close else ""


def _overridden(task: Task, hook: str) -> bool:
    return hook in vars(task) or getattr(type(task), hook) is not getattr(Task, hook)


def _own_kinds(task: Task) -> list[type]:
    """The classes of a task that are tasks themselves, and not the package's."""
    package = __name__.partition(".")[0]
    return [
        kind
        for kind in type(task).__mro__
        if issubclass(kind, Task) and kind.__module__.partition(".")[0] != package
    ]


def _methods(kinds: list[type]) -> list[str]:
    names = [name for kind in kinds for name, value in vars(kind).items() if _function(value)]
    return [name for name in dict.fromkeys(names) if not name.startswith("_")]


def _function(value: Any) -> FunctionType | None:
    """The function behind a method or a property of a class, or behind a decorator."""
    if isinstance(value, (staticmethod, classmethod)):
        value = value.__func__
    elif isinstance(value, property):
        value = value.fget
    elif isinstance(value, cached_property):
        value = value.func
    found = inspect.unwrap(value) if callable(value) else None
    return found if isinstance(found, FunctionType) else None


def _mentioned(kinds: list[type]) -> set[str]:
    """Names that the code of the classes, and of all else in their modules, reads or spells out."""
    modules = {kind.__module__ for kind in kinds}
    globals_ = [
        value
        for module in modules
        for name, value in vars(sys.modules.get(module, object)).items()
        if not name.startswith("__")
    ]
    values = [value for value in globals_ if getattr(value, "__module__", None) in modules]
    classes = {*kinds, *(value for value in values if isinstance(value, type))}
    values += [inner for kind in classes for inner in vars(kind).values()]
    named = {
        name
        for value in values
        if (function := _function(value)) is not None
        for name in _names_in(function.__code__)
    }
    # `score = metric` in a class, and lists of names.
    aliases = {
        function.__name__
        for kind in classes
        for name, value in vars(kind).items()
        if (function := _function(value)) is not None and function.__name__ != name
    }
    attributes = [value for kind in classes for value in vars(kind).values()]
    spelt = {text for value in (*globals_, *attributes) for text in _texts(value)}
    return named | aliases | spelt


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)
        else:
            yield from _texts(constant)


def _texts(value: Any, depth: int = 3) -> Iterator[str]:
    """The texts that a value is, or has, if it is a list or something like it."""
    if isinstance(value, str):
        yield value
    elif depth and isinstance(value, (tuple, list, set, frozenset, dict)):
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        for each in inner:
            yield from _texts(each, depth - 1)
