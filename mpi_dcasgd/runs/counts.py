"""Whole numbers that a program hands to a function of the Python API."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from mpi_dcasgd.errors import ConfigError


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
    _refuse(call, [f"{_told(key, value)} a whole number > 0" for key, value in _wrong(given)])


def check_several_counts(call: str, **given: Any) -> None:
    """Refuse what is no collection of such numbers; likewise.

    Example:
        >>> check_several_counts("advise", workers=[4, 8])
    """
    _refuse(
        call,
        [
            f"{_told(key, value)} a list of whole numbers > 0, as [4, 8]"
            for key, value in given.items()
            if value is not None and not _are_counts(value)
        ],
    )


def _wrong(given: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in given.items() if not (value is None or _is_count(value))]


def _is_count(value: Any) -> bool:
    # NumPy's whole numbers are as good; True is one, too, but nobody means it.
    return not isinstance(value, bool) and hasattr(value, "__index__") and int(value) > 0


def _are_counts(value: Any) -> bool:
    if isinstance(value, str) or not isinstance(value, Collection):
        return False
    return all(map(_is_count, value))


def _told(key: str, value: Any) -> str:
    return f"{key}: got {value!r}; allowed:"


def _refuse(call: str, problems: list[str]) -> None:
    if problems:
        raise ConfigError(call, problems)
