"""How a run ended: by its launcher's exit status, or by what its folder tells instead."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

from mpi_dcasgd.record.run_folder import RunFolder

_LAST_WORDS_S = 5.0


class RunEnd:
    """Notices that a run's folder tells of its end, whatever becomes of its launcher.

    Args:
        folder: The run folder. A summary that it holds already is an earlier start's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before = read_summary(folder)

    def status(self) -> int | None:
        """The exit status that suits the run's summary; None as long as it has none."""
        summary = read_summary(self._folder)
        if not summary or summary == self._before:
            return None
        if summary.get("status") == "completed":
            return 0
        return _stopped_by(summary) or 1


def interrupted_status(status: int, folder: Path) -> int:
    """The exit status of a world, or 128 + n if it tells of no signal though n stopped the run.

    When SLURM has ended Open MPI's daemons, and the ranks with them, mpirun (5.0.11) ends with 0
    or with a status of its own: so SLURM preempts.
    """
    if status > 128:
        return status
    summary = read_summary(folder)
    deadline = time.monotonic() + _LAST_WORDS_S
    # mpirun does not wait for such ranks: they may be about to write it.
    while status == 0 and not summary and RunFolder(folder).metrics_jsonl.exists():
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
        summary = read_summary(folder)
    return _stopped_by(summary) or status


def read_summary(folder: Path) -> dict[str, Any]:
    """A run's summary; empty where there is none that can be read."""
    try:
        summary = json.loads(RunFolder(folder).summary_json.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def _stopped_by(summary: dict[str, Any]) -> int | None:
    if summary.get("status") != "interrupted":
        return None
    words = str(summary.get("reason", "")).split()
    return 128 + int(words[-1]) if words and words[-1].isdecimal() else 128 + signal.SIGTERM
