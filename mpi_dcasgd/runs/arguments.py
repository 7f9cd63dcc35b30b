"""Arguments of the Python API: checked against the type hints of its functions."""

from __future__ import annotations

import math
import os
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from mpi_dcasgd.counts import is_whole
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.messages import allowed, shown

_UNIONS = (Union, types.UnionType)
_SETTINGS = ("task",)  # a job's, and checked with it
_PLAIN = (bool, int, float, str)
_NO_LISTS = (str, bytes, bytearray, Mapping)
_LIMITS: dict[str, Callable[[Any, Any], bool]] = {
    "ge": lambda value, limit: value >= limit,
    "gt": lambda value, limit: value > limit,
    "le": lambda value, limit: value <= limit,
    "lt": lambda value, limit: value < limit,
    "allow_inf_nan": lambda value, allow: allow or math.isfinite(value),
}


def check_arguments(function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Refuse arguments that are not of the kinds that a function's hints say.

    Args:
        function: Of the API. A hint may have a range, as in ``learning.settings.Count``.
        given: Its arguments by name: ``locals()``, at its very beginning.

    Raises:
        ConfigError: It names all that are wrong.

    Example:
        >>> def double(steps: int) -> int:
        ...     check_arguments(double, locals())
        ...     return 2 * steps
        >>> double(4)
        8
        >>> double("4")
        Traceback (most recent call last):
        mpi_dcasgd.errors.ConfigError: double: 1 problem
          steps: got '4' (text); allowed: a whole number
    """
    problems = [
        f"{name}: got {shown(given[name])}; allowed: {_allowed(hint)}"
        for name, hint in _hints(function).items()
        if not _is_one(given[name], hint)
    ]
    if problems:
        raise ConfigError(function.__qualname__.removesuffix(".__init__"), problems)


def several(names: str | Sequence[str]) -> Sequence[str]:
    """Return names as a list, where one alone may be given as it is.

    Example:
        >>> several("asgd"), several(["asgd", "ssgd"])
        (('asgd',), ['asgd', 'ssgd'])
    """
    return (names,) if isinstance(names, str) else names


def is_communicator(value: Any) -> bool:
    """Return whether a value is a communicator with ranks; MPI is not loaded to find out."""
    try:
        return is_whole(value.rank, least=0) and is_whole(value.size)
    except (AttributeError, RuntimeError):  # MPI's own of a communicator that has been freed
        return False


class _MPI:
    """What is used of mpi4py in hints, where a type checker alone imports it."""

    class Intracomm:
        pass


@cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The hints of the parameters that are checked here."""
    code = function.__code__
    places = {**function.__globals__, "MPI": _MPI}
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return {
        name: typing.get_type_hints(_alone(function, name), places, include_extras=True)[name]
        for name in names
        if name in function.__annotations__ and name not in _SETTINGS
    }


def _alone(function: Callable[..., Any], name: str) -> Any:
    """Something with one hint of a function: others may name what a type checker alone imports."""
    return types.SimpleNamespace(__annotations__={name: function.__annotations__[name]})


def _is_one(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _is_one(value, inner[0]) and _is_within(value, inner[1:])
    if origin in _UNIONS:
        return any(_is_one(value, each) for each in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is tuple:
        fits = isinstance(value, (tuple, list)) and len(value) == len(inner)
        return fits and all(map(_is_one, value, inner))
    if origin is Sequence:
        several_ = isinstance(value, Collection) and not isinstance(value, _NO_LISTS)
        # An array without a dimension is a number.
        listed = several_ and getattr(value, "ndim", 1) > 0
        return listed and all(_is_one(each, inner[0]) for each in value)
    return _is_of_class(value, origin or hint)


def _is_of_class(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    if kind is int:
        return is_whole(value, least=-sys.maxsize)
    if kind is float:
        real = isinstance(value, Real) and not isinstance(value, bool)
        return real and _is_float(value)
    if kind is Path:
        return isinstance(value, os.PathLike)
    if kind is TextIO:
        return callable(getattr(value, "write", None))
    return is_communicator(value) if kind is _MPI.Intracomm else isinstance(value, kind)


def _is_float(value: Real) -> bool:
    try:
        return not math.isnan(float(value))
    except OverflowError:  # of a whole number that no float can be
        return False


def _is_within(value: Any, metadata: Sequence[Any]) -> bool:
    ranges = [
        one
        for item in metadata
        for one in (item.metadata if isinstance(item, FieldInfo) else [item])
    ]
    return all(
        holds(value, getattr(one, name))
        for one in ranges
        for name, holds in _LIMITS.items()
        if hasattr(one, name)
    )


def _allowed(hint: Any) -> str:
    """Describe what a hint allows, in Python's words."""
    inner = get_args(hint)
    kinds = list(inner) if get_origin(hint) in _UNIONS else [hint]
    if Path in kinds and str in kinds:  # a path in either form
        kinds.remove(str)
    *words, last = [_word(kind) for kind in kinds]
    return f"{', '.join(words)} or {last}" if words else last


def _word(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Sequence, tuple):
        plain = get_origin(inner[0]) is Annotated or inner[0] in _PLAIN
        word = allowed(tuple[inner[0], ...]) if plain else "a list of them"  # type: ignore[valid-type]
        return word if origin is Sequence else word.replace("list", "pair")
    if kind in _WORDS:
        return _WORDS[kind]
    if origin is not None or kind in (*_PLAIN, Path):
        return allowed(kind)
    return f"a {kind.__name__}"


_WORDS: dict[Any, str] = {
    bool: "True or False",
    types.NoneType: "None",
    TextIO: "a stream to write to, such as sys.stdout",
    _MPI.Intracomm: "a communicator of mpi4py's (MPI.Intracomm)",
}
