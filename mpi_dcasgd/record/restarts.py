"""restarts.jsonl: when and why the launcher has started a run again, one JSON object a line.

It is the launcher's file, which writes it while no rank is there: metrics.jsonl is cut back to the
checkpoint that a run resumes from. Rank 0 repeats what is new there as events.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Restart:
    """A start of a run by its launcher after it had ended early.

    Attributes:
        restart: Number of it, from 1.
        allowed: Largest number of them.
        at: Time of day, with the time zone.
        cause: What had ended the run.
        version: Version of the checkpoint that the run resumes from; None where it begins anew.
        ranks: Ranks that are started.
        left_out: Hosts that were lost, and are not used.
    """

    restart: int
    allowed: int
    at: str
    cause: str
    version: int | None
    ranks: int
    left_out: tuple[str, ...] = ()

    @property
    def whence(self) -> str:
        """The point that the run resumes from, in words."""
        return "starting over" if self.version is None else f"resuming at update {self.version}"


def read_restarts(path: Path) -> list[Restart]:
    """Return the restarts in a file, oldest first; lines that are none are left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        with suppress(ValueError, TypeError, KeyError):
            found.append(_restart(json.loads(line)))
    return found


def write_restarts(path: Path, restarts: list[Restart]) -> None:
    """Make a file hold these restarts; one that holds anything else is left as it is.

    Raises:
        OSError: It cannot be written.
    """
    if path.exists() and path.stat().st_size and not read_restarts(path):
        return
    if not restarts:
        path.unlink(missing_ok=True)
        return
    aside = path.with_name(f"{path.name}.tmp")
    aside.write_text("".join(json.dumps(asdict(each)) + "\n" for each in restarts))
    aside.replace(path)


def _restart(values: Mapping[str, Any]) -> Restart:
    return Restart(**{**values, "left_out": tuple(values["left_out"])})
