"""Origin of a source file: ours, a library's or a user's own."""

from __future__ import annotations

import sysconfig
import traceback
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parent


def place_of(error: BaseException) -> str:
    """Tell the file and line of a user's code that an exception comes from, in brackets.

    Returns:
        The innermost place that is neither ours nor a library's, or an empty string.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}, line {error.lineno})"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if not is_installed(path) and _PACKAGE not in path.parents and path.is_file():
            return f" ({frame.filename}, line {frame.lineno})"
    return ""


def is_installed(path: Path) -> bool:
    """Return whether a file came with Python or was installed, and is not a user's own."""
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    return not _standard_places().isdisjoint(path.parents)


@cache
def _standard_places() -> frozenset[Path]:
    paths = sysconfig.get_paths()
    return frozenset(Path(paths[key]) for key in ("stdlib", "platstdlib", "purelib", "platlib"))
