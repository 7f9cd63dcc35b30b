"""Whole numbers that are given: in a job or a cluster, by a program, by a user's own class."""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex, TypeGuard


def is_whole(value: Any, least: int = 1) -> TypeGuard[SupportsIndex]:
    """Return whether a value is a whole number that is large enough.

    NumPy's whole numbers are as good; True is one, too, but nobody means it.

    Example:
        >>> is_whole(7), is_whole(7.0), is_whole(True), is_whole(0), is_whole(0, least=0)
        (True, False, False, False, True)
    """
    try:
        return not isinstance(value, bool) and operator.index(value) >= least
    except TypeError:
        return False


def allowed_whole(least: int = 1) -> str:
    """Describe the numbers that ``is_whole`` takes."""
    return f"a whole number >= {least}"


def no_whole(key: str, value: str, least: int = 1) -> str:
    """Say that a value, as it is to be shown, is no such number."""
    return f"{key}: got {value}; allowed: {allowed_whole(least)}"
