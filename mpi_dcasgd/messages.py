"""Words for messages and the reference: allowed values of a setting, and the value seen.

Settings dataclasses of every layer are made by pydantic; what it finds wrong is worded here.
"""

from __future__ import annotations

import math
import re
import reprlib
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mpi_dcasgd.errors import ConfigError, did_you_mean

_UNIONS = (Union, types.UnionType)
_LISTS = (tuple, list, set, frozenset)
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 60
_BRIEF.maxlevel = 2
_LONGEST_BITS = 1024  # of whole numbers that are shown; Python does not show very long ones


def settings_of(kind: Any) -> dict[str, FieldInfo]:
    """The fields of a settings dataclass by name, with types, ranges and descriptions."""
    found: dict[str, FieldInfo] = dict(kind.__pydantic_fields__)
    return {field.name: found[field.name] for field in fields(kind)}


def is_section(annotation: Any) -> bool:
    """Return whether a field of this type is a section with keys of its own."""
    return isinstance(annotation, type) and hasattr(annotation, "__pydantic_fields__")


def is_list_of_sections(annotation: Any) -> bool:
    """Return whether a field of this type is a list of mappings with keys of their own."""
    return is_section(element(annotation))


def allowed(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Describe the values that a type and its ranges allow: ``a whole number >= 1``."""
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        metadata = [*_flat(more), *metadata]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments)) if len(arguments) > 1 else arguments[0]
    if origin in _UNIONS:
        words = dict.fromkeys(
            "a mapping" if is_section(a) else allowed(a, metadata)
            for a in arguments
            if a is not types.NoneType
        )
        return " or ".join([*words, "null"] if types.NoneType in arguments else words)
    if (inner := element(annotation)) is not None:
        least = "a list, not empty, of" if _not_empty(metadata) else "a list of"
        return f"{least} {_plural(allowed(inner))}"
    if annotation is str and _not_empty(metadata):
        return "text that is not empty"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    if annotation in names:
        return names[annotation] + _range(metadata)
    if annotation is Path:
        return "a path"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "one of " + ", ".join(str(each.value) for each in annotation)
    if isinstance(origin or annotation, type) and issubclass(origin or annotation, Mapping):
        if not arguments or Any in arguments:
            return "a mapping"
        keys, values = (_plural(allowed(each)) for each in arguments)
        return f"a mapping of {keys} to {values}"
    if is_section(annotation):
        return "a mapping of " + ", ".join(f.name for f in fields(annotation))
    return "any value" if annotation is Any else str(annotation)


def element(annotation: Any) -> Any:
    """The type of a list's elements, or None if values of this type are no lists."""
    return get_args(annotation)[0] if get_origin(annotation) in _LISTS else None


def choices(annotation: Any) -> list[str]:
    """The words that a value may be, where some are listed."""
    if get_origin(annotation) is Annotated:
        return choices(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return [a for a in get_args(annotation) if isinstance(a, str)]
    return [word for a in get_args(annotation) for word in choices(a)]


def seen(value: Any) -> str:
    """A value as a message shows it, with its type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} (not a finite number)"
    if isinstance(value, int) and value.bit_length() > _LONGEST_BITS:
        return f"a whole number of about {int(value.bit_length() * 0.30103) + 1} digits"
    for kind, name in ((int, "a whole number"), (float, "a number"), (str, "text")):
        if isinstance(value, kind):
            return f"{_BRIEF.repr(value)} ({name})"
    if isinstance(value, Mapping):
        return f"{_BRIEF.repr(value)} (a mapping)"
    if isinstance(value, Sequence):
        return f"{_BRIEF.repr(value)} (a list)"
    return _BRIEF.repr(value)


def shown(value: Any) -> str:
    """A value as a message to a program shows it: None and True are Python's, not YAML's."""
    return str(value) if value is None or isinstance(value, bool) else seen(value)


def problems_of(
    kind: type,
    values: Mapping[str, Any],
    prefix: str,
    error: ValidationError,
    reported: Sequence[object] = (),
) -> list[str]:
    """Word what pydantic found wrong with a settings dataclass, in lines that begin with the key.

    Args:
        kind: The dataclass.
        values: What it was to be made of, by field.
        prefix: What stands before the keys in messages.
        error: The finding. A validator that raises its exception from a ``ConfigError`` has worded
            its problems already, in lines that begin with the field's name.
        reported: Fields whose absence has been explained already.
    """
    found = error.errors(include_url=False)
    places = [details["loc"] for details in found]
    lines: list[str] = []
    for details in found:
        place = details["loc"]
        if details["type"] == "missing" and place[0] in reported:
            continue
        if any(place == other[: len(place)] != other for other in places):
            continue  # a list, say, is too short without its wrong elements
        lines += _worded(kind, values, prefix, details)
    # A value of several allowed types fails once for each, and is reported once.
    return list(dict.fromkeys(lines))


def _worded(kind: type, values: Mapping[str, Any], prefix: str, details: ErrorDetails) -> list[str]:
    """One of pydantic's findings in words; several lines if a validator has worded it."""
    place = details["loc"]
    cause = getattr(details.get("ctx", {}).get("error"), "__cause__", None)
    if isinstance(cause, ConfigError):
        return [f"{prefix}{line}" for line in cause.problems]
    key, annotation, metadata, value = _at(place, kind, values)
    if not key:
        return [f"{prefix.rstrip('.')}: {_own_words(details)}"]
    path, what = f"{prefix}{key}", details["type"]
    if what == "unexpected_keyword_argument":
        return [f"{path}: {_unknown(str(place[-1]), annotation)}"]
    if what == "missing":
        return [f"{path}: missing; give {allowed(annotation, metadata)}"]
    if what in ("value_error", "assertion_error"):
        return [f"{path}: got {seen(value)}; {_own_words(details)}"]
    hint = did_you_mean(value, choices(annotation)) if isinstance(value, str) else ""
    return [f"{path}: got {seen(value)}; allowed: {allowed(annotation, metadata)}{hint}"]


def _at(place: Sequence[int | str], kind: Any, values: Any) -> tuple[str, Any, Sequence[Any], Any]:
    """Follow where a finding is from the settings inwards, as far as they are known.

    Returns:
        The dotted key, the type and the ranges there, and the value. The type around an unknown
        key, which ends the dotted key.
    """
    key, annotation, value = "", kind, values
    metadata: Sequence[Any] = ()
    for step, after in zip(place, [*place[1:], None], strict=True):
        if after == "[key]":  # of a mapping, all of which is shown
            break
        inner, around = _inner(annotation, step), _one_kind(annotation)
        if inner is None and not is_section(around):
            break  # what pydantic calls one of several types
        key += f"[{step}]" if isinstance(step, int) else f".{step}" if key else step
        if inner is None:
            return key, around, (), None
        annotation, metadata = inner
        value = _value_in(value, step)
    return key, annotation, metadata, value


def _inner(annotation: Any, step: int | str) -> tuple[Any, Sequence[Any]] | None:
    """The type and the ranges of a field, an element or a mapping's value; None if none is."""
    kind = _one_kind(annotation)
    if is_section(kind):
        info = settings_of(kind).get(str(step))
        return None if info is None else (info.annotation, info.metadata)
    if isinstance(step, int):
        return None if element(kind) is None else (element(kind), ())
    origin, arguments = get_origin(kind), get_args(kind)
    mapping = isinstance(origin, type) and issubclass(origin, Mapping)
    return (arguments[1], ()) if mapping else None


def _one_kind(annotation: Any) -> Any:
    """The type that a value has to be of unless it is null, without its ranges."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _one_kind(arguments[0])
    others = [each for each in arguments if each is not types.NoneType]
    return _one_kind(others[0]) if origin in _UNIONS and len(others) == 1 else annotation


def _value_in(value: Any, step: int | str) -> Any:
    if isinstance(value, Mapping):  # whose keys may be numbers, which JSON has as text
        return next((inner for key, inner in value.items() if str(key) == str(step)), None)
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return value[step] if is_list and isinstance(step, int) else None


def _unknown(key: str, kind: Any) -> str:
    names = list(settings_of(kind))
    return "unknown" + (did_you_mean(key, names) or f" (allowed: {', '.join(names)})")


def _own_words(details: ErrorDetails) -> str:
    return re.sub(r"^(Value|Assertion) error, ", "", details["msg"])


def _flat(metadata: Sequence[Any]) -> list[Any]:
    """Ranges of an Annotated type, those within a ``Field(...)`` too."""
    found: list[Any] = []
    for item in metadata:
        found += item.metadata if isinstance(item, FieldInfo) else [item]
    return found


def _range(metadata: Sequence[Any]) -> str:
    limits = {Ge: (">=", "ge"), Gt: (">", "gt"), Le: ("<=", "le"), Lt: ("<", "lt")}
    words = [
        f" {sign} {getattr(item, attribute):g}"
        for item in _flat(metadata)
        for kind, (sign, attribute) in limits.items()
        if isinstance(item, kind)
    ]
    return " and".join(words)


def _not_empty(metadata: Sequence[Any]) -> bool:
    return any(isinstance(item, MinLen) for item in _flat(metadata))


def _plural(words: str) -> str:
    for one, many in (("a whole number", "whole numbers"), ("a number", "numbers")):
        if words.startswith(one):
            return many + words[len(one) :]
    return words
