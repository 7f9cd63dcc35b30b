"""Words for messages and the reference: allowed values of a setting, and the value seen."""

from __future__ import annotations

import math
import reprlib
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic.fields import FieldInfo

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
    if origin in (Union, types.UnionType):
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
        return "a mapping"
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
