"""Type hints of a user's functions as a job file can keep them, and values as it holds them.

YAML has neither tuples, sets nor paths; a job file gives lists and text in their place.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from enum import Enum
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Optional, Union

from pydantic import AfterValidator, Field

_TRUTH = ("numpy.bool", "numpy.bool_")  # which NumPy does not register as a number
_MADE_OF_LISTS = (tuple, set, frozenset)


def setting_type(hint: Any, default: Any) -> Any:
    """Return the type of a setting from the hint of a parameter.

    Args:
        hint: The hint; ``Any`` for none.
        default: Of the parameter; ``inspect.Parameter.empty`` for none.

    Example:
        >>> setting_type(int, 3), setting_type(int, None)
        (<class 'int'>, typing.Optional[int])
    """
    kept = _as_given(hint)
    if type(default) is tuple and not _mentions_tuple(hint):
        kept = Annotated[kept, AfterValidator(_as_tuple)]
    return _or_none(kept) if default is None and not _allows_none(kept) else kept


def is_plain(value: Any) -> bool:
    """Return whether a job file can hold a value, if only as a list or text in its place.

    Example:
        >>> is_plain({"sizes": (1, 2), "where": Path("data")}), is_plain(print)
        (True, False)
    """
    if isinstance(value, Enum):
        return is_plain(value.value)
    if value is None or isinstance(value, (bool, int, float, str, Path)):
        return True
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(is_plain, value))
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(inner) for key, inner in value.items())
    # NumPy's scalars are numbers as good as Python's, and know which; a Fraction would have to be
    # rounded. A tensor is none, whatever its shape: it has a device and a type of its own, which
    # the number that is made of it would have lost.
    kind = type(value)
    number = isinstance(value, Real) and hasattr(value, "item")
    return number or f"{kind.__module__}.{kind.__name__}" in _TRUTH


def as_written(value: Any) -> Any:
    """Return a value as a job file holds it, if it is one that YAML has no word for.

    Example:
        >>> as_written((1, Path("data"))), as_written({3, 2})
        ([1, 'data'], [2, 3])
    """
    if isinstance(value, Enum):
        return as_written(value.value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(map(as_written, value), key=lambda each: (str(type(each)), each))
    if isinstance(value, (tuple, list)):
        return [as_written(inner) for inner in value]
    if isinstance(value, Mapping):
        return {str(key): as_written(inner) for key, inner in value.items()}
    return value


def _as_given(hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        inner, *more = arguments
        return Annotated[(_as_given(inner), *more)]
    if origin in (Union, types.UnionType):
        return Union[tuple(map(_as_given, arguments))]  # noqa: UP007
    kind = origin or hint
    if origin is not None and isinstance(kind, type):
        try:
            hint = origin[tuple(map(_as_given, arguments))]
        except TypeError:  # Callable[[int], int] and its like
            return hint
    text = isinstance(kind, type) and issubclass(kind, (Path, Enum))
    return Annotated[hint, Field(strict=False)] if text or kind in _MADE_OF_LISTS else hint


def _or_none(hint: Any) -> Any:
    if typing.get_origin(hint) is not Annotated:
        return Optional[hint]  # noqa: UP045
    inner, *more = typing.get_args(hint)
    return Annotated[(Optional[inner], *more)]  # noqa: UP045


def _allows_none(hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _allows_none(arguments[0])
    if origin in (Union, types.UnionType):
        return any(map(_allows_none, arguments))
    return hint in (Any, None, types.NoneType) or (origin is typing.Literal and None in arguments)


def _mentions_tuple(hint: Any) -> bool:
    inner = typing.get_args(hint)
    return (typing.get_origin(hint) or hint) is tuple or any(map(_mentions_tuple, inner))


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
