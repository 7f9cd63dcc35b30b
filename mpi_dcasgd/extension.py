"""Names that job files use for code: built-in ones from tables, and ``package.module:Name``.

Rule parts, data sets, models, delay models and metric sinks are all found here, so that a user's
own are named, and refused, in the same way everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, Generic, TypeVar

from mpi_dcasgd.errors import UserError, did_you_mean
from mpi_dcasgd.modules import import_module

T = TypeVar("T")


class Table(Generic[T], Mapping[str, type[T]]):
    """Built-in classes of one kind by name; a module is imported when its class is asked for.

    Args:
        base: The class that all of them are subclasses of.
        places: Name to ``package.module:Name``.

    Example:
        >>> table = Table(Exception, {"user": "mpi_dcasgd.errors:UserError"})
        >>> table.find("user").__name__, table.find("mpi_dcasgd.errors:DataError").__name__
        ('UserError', 'DataError')
    """

    def __init__(self, base: type[T], places: Mapping[str, str]) -> None:
        self._base = base
        self._places = dict(places)

    def __getitem__(self, name: str) -> type[T]:
        return import_class(self._places[name], self._base)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def find(self, name: object) -> type[T]:
        """Look up a built-in class by name, or import one by ``package.module:Name``.

        Raises:
            UserError: There is no such class, or it is not of this table's kind.
        """
        if isinstance(name, str):
            if name in self._places:
                return self[name]
            if is_path(name):
                return import_class(name, self._base)
        raise UserError(unknown(name, self))


def is_path(name: str) -> bool:
    """Return whether a name has the form ``package.module:Name``."""
    return ":" in name


def import_object(path: str) -> Any:
    """Import what ``package.module:Name`` names.

    Raises:
        UserError: It is not of this form, there is no such module or name, or the module raises
            while it is imported.
    """
    module, _, name = path.partition(":")
    if not all(word.isidentifier() for word in (*module.split("."), name)):
        raise UserError(f"cannot import {path}: it is not of the form package.module:Name")
    try:
        found = import_module(module)
    except UserError as error:
        raise UserError(f"cannot import {path}: {error}") from error
    try:
        return getattr(found, name)
    except AttributeError as error:
        raise UserError(f"cannot import {path}: {_lacks(found, name)}") from error


def _lacks(module: ModuleType, name: str) -> str:
    if module.__name__ == "__main__":
        return (
            f"the program that is running has no {name}; what is defined in a script or a notebook "
            "can be named there only: put it into a module of its own, or hand it over from there"
        )
    file = getattr(module, "__file__", None)
    where = f" ({file})" if file else ""
    hint = did_you_mean(name, vars(module))
    return f"module {module.__name__!r} has no attribute {name!r}{where}{hint}"


def import_class(path: str, base: type[T]) -> type[T]:
    """Import the class that ``package.module:Name`` names.

    Args:
        path: The name.
        base: The class that it must be a subclass of.

    Raises:
        UserError: It cannot be imported, or is something else.
    """
    found = import_object(path)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{path} is not a subclass of {base.__module__}.{base.__qualname__}")
    return found


def unknown(name: object, names: Iterable[str]) -> str:
    """Say that there is no such name, with the nearest one and all that are allowed."""
    names = list(names)
    hint = did_you_mean(str(name), names)
    module, _, inner = str(name).rpartition(".")
    if not hint and module:
        hint = f"; did you mean {module}:{inner}?"
    return f"unknown {name!r}{hint} (allowed: {', '.join(names)}, or package.module:Name)"
