"""Result of one check: what was seen, and the command that mends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Result = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        name: Of the check.
        result: ``fail``: runs that need it do not work. ``warn``: some kinds of runs do not, or
            are slower than they could be.
        seen: What was seen, with its consequence if it is not ``ok``.
        fix: Command that mends it, with what there is to know about it; empty if it is ``ok``, or
            if another check has to be mended first.
    """

    name: str
    result: Result
    seen: str
    fix: str = ""


def ok(name: str, seen: str) -> Finding:
    """Return the finding of something that works."""
    return Finding(name, "ok", seen)


def warn(name: str, seen: str, fix: str) -> Finding:
    """Return the finding of something that some runs will miss."""
    return Finding(name, "warn", seen, fix)


def fail(name: str, seen: str, fix: str) -> Finding:
    """Return the finding of something that does not work."""
    return Finding(name, "fail", seen, fix)


def unseen(name: str, why: str) -> Finding:
    """Return the finding of something that cannot be seen before something else is mended."""
    return Finding(name, "warn", f"not seen: {why}")


def healthy(findings: Sequence[Finding]) -> bool:
    """Return whether nothing failed.

    Example:
        >>> healthy([ok("MPI", "works"), warn("Horovod", "is not installed", "pip install it")])
        True
    """
    return all(finding.result != "fail" for finding in findings)
