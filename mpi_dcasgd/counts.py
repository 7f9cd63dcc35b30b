"""Whole numbers that are given: in a job or a cluster, by a program, by a user's own class."""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any, SupportsIndex, TypeGuard

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.messages import shown


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


def check_counts(call: str, **given: Any) -> None:
    """Refuse what is no whole number above 0.

    Args:
        call: Name of the function.
        **given: Its arguments; None is left to the function.

    Raises:
        ConfigError: It names all that are wrong.

    Example:
        >>> check_counts("closeup", every=7)
    """
    _refuse(
        call,
        [
            no_whole(key, shown(value))
            for key, value in given.items()
            if not (value is None or is_whole(value))
        ],
    )


def check_several_counts(call: str, **given: Any) -> None:
    """Refuse what is no collection of such numbers; likewise.

    Example:
        >>> check_several_counts("advise", workers=[4, 8])
    """
    _refuse(
        call,
        [
            f"{key}: got {shown(value)}; allowed: a list of whole numbers >= 1, as [4, 8]"
            for key, value in given.items()
            if not (value is None or _are_counts(value))
        ],
    )


def _are_counts(value: Any) -> bool:
    if isinstance(value, str) or not isinstance(value, Collection):
        return False
    return all(map(is_whole, value))


def _refuse(call: str, problems: list[str]) -> None:
    if problems:
        raise ConfigError(call, problems)
