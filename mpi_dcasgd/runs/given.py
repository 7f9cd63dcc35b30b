"""Tasks, classes and functions that a program hands over, as the sections of a job name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeAlias, TypeGuard

from mpi_dcasgd.errors import ConfigError, UserError
from mpi_dcasgd.extension import import_object
from mpi_dcasgd.learning.data import DataSource
from mpi_dcasgd.learning.declared import DECLARED
from mpi_dcasgd.learning.guard import failed
from mpi_dcasgd.learning.hints import as_written, is_plain
from mpi_dcasgd.learning.models import ModelSource
from mpi_dcasgd.learning.settings import Named
from mpi_dcasgd.learning.signature import parameters_of
from mpi_dcasgd.learning.task import Task, arguments_of, made_again
from mpi_dcasgd.messages import seen, shown

GivenTask: TypeAlias = Task | type[Task] | Mapping[str, Any]
"""A task, whose settings are what it was made with; a class, without any; or a job's section, whose
``name`` may be a class."""

Given: TypeAlias = Callable[..., Any] | Named | Mapping[str, Any]
"""The model or the data: a function or a class, without settings, or a job's section, whose
``name`` may be one."""

SECTIONS = ("task", "model", "data")


def section_of(key: str, value: Any) -> Any:
    """Return a section of a job in plain values, from what a program gave for it.

    Args:
        key: ``task``, ``model`` or ``data``.
        value: What was given; what is plain already is left as it is.

    Raises:
        ConfigError: It cannot be named in a job, or a setting of it cannot be written there.
    """
    if isinstance(value, Mapping):
        name = value.get("name")
        named = name if name is None or isinstance(name, str) else path_of(key, name)
        return value if named is name else {**value, "name": named}
    if isinstance(value, Task):
        return _section_of_task(value)
    if isinstance(value, Named):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return {"name": path_of(key, value)}
    if callable(value):
        raise ConfigError(
            key,
            [
                f"got {_kind(value)}; allowed: a class or a function, so that every rank can make "
                "it, or a mapping of name and settings"
            ],
        )
    return value


def is_task(value: Any) -> TypeGuard[Task | type[Task]]:
    """Return whether a program gave a task or the class of one, not the section of a job."""
    return isinstance(value, Task) or (isinstance(value, type) and issubclass(value, Task))


def brought_by(task: Task | type[Task]) -> list[str]:
    """List the sections of a job that a task which a program gave has no use for."""
    taken = parameters_of(task if isinstance(task, type) else type(task))
    return [key for key in ("model", "data") if key not in taken]


def sections_with(task: Any) -> dict[str, Any]:
    """Return the sections that a task was made with: its arguments ``model`` and ``data``."""
    if not isinstance(task, Task):
        return {}
    given = arguments_of(task)
    kinds = {"model": ModelSource, "data": DataSource}
    return {key: given[key] for key, kind in kinds.items() if isinstance(given.get(key), kind)}


def path_of(key: str, found: Any) -> str:
    """Return ``package.module:Name`` of a class or a function.

    Args:
        key: ``task``, ``model`` or ``data``, for messages.
        found: The class or function.

    Raises:
        ConfigError: It has no such name.
    """
    module = getattr(found, "__module__", None)
    name = getattr(found, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        raise ConfigError(key, [f"got {_kind(found)}; allowed: a class or a function with a name"])
    if "." in name or not name.isidentifier():
        inside = "a function" if "<locals>" in name else "a class"
        what = "a lambda has no name" if "<lambda>" in name else f"it is defined inside {inside}"
        raise ConfigError(
            key, [f"got {name}: {what}, so that no rank can import it; move it to the top level"]
        )
    path = f"{module}:{name}"
    try:
        same = import_object(path) is found
    except UserError as error:
        raise ConfigError(key, [f"got {name}: {error}"]) from error
    if not same:
        raise ConfigError(
            key,
            [
                f"got {name} of {module}, but {path} is another by now: it was defined again; make "
                f"the {key} of the newer one"
            ],
        )
    return path


def _section_of_task(task: Task) -> dict[str, Any]:
    path = path_of("task", type(task))
    given = {
        key: value
        for key, value in arguments_of(task).items()
        if not isinstance(value, (ModelSource, DataSource))
    }
    problems = [
        f"{key}: got {seen(value)}; allowed: what a job file can hold (numbers, text, true, false, "
        "null, lists and mappings), so make it in the task from such settings"
        for key, value in given.items()
        if not is_plain(value)
    ]
    problems = problems or _set_later(task)
    if "name" in given:
        problems.append("name: is what a job calls the task; give the argument another name")
    if problems:
        raise ConfigError(f"task {path}", problems)
    return {"name": path, **{key: as_written(value) for key, value in given.items()}}


def _set_later(task: Task) -> list[str]:
    """Find arguments and declarations that were changed on a task after it had been made.

    A constructor may keep something else than its argument, and then only making the task again
    tells.
    """
    parameters = parameters_of(type(task))
    given = {name: parameter.default for name, parameter in parameters.items()}
    given |= {name: getattr(type(task), name) for name in DECLARED}
    given |= arguments_of(task)
    now = vars(task)
    others = [name for name in given if name in now and not _alike(now[name], given[name])]
    if not others:
        return []
    try:
        fresh = made_again(task)
    except Exception as error:
        raise failed(f"{type(task).__name__}()", error) from error
    missing = object()
    made = {name: getattr(fresh, name, missing) for name in others}
    return [
        f"{name}: is {shown(now[name])} by now, but every rank makes the task anew, with "
        f"{shown(made[name])}; "
        + (f"give {name} to the constructor" if name in parameters else f"set {name} in the class")
        for name in others
        if made[name] is not missing and not _alike(now[name], made[name])
    ]


def _alike(one: Any, other: Any) -> bool:
    """Return whether two values are the same, or cannot be compared."""
    if one is other or not (is_plain(one) or is_plain(other)):
        return True
    if not (is_plain(one) and is_plain(other)):
        return False
    one, other = as_written(one), as_written(other)
    return bool(one == other or (one != one and other != other))


def _kind(value: Any) -> str:
    return f"an object of {type(value).__qualname__}"
