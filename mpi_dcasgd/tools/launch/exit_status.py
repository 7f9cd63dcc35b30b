"""End of a run: by its launcher's exit status, or by what its folder tells instead."""

from __future__ import annotations

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
        self._folder = RunFolder(folder)
        self._before = self._folder.summary(lenient=True)

    def status(self) -> int | None:
        """The exit status that suits the run's summary; None as long as it has none."""
        summary = self._folder.summary(lenient=True)
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
    run = RunFolder(folder)
    summary = run.summary(lenient=True)
    deadline = time.monotonic() + _LAST_WORDS_S
    # mpirun does not wait for such ranks: they may be about to write it.
    while status == 0 and not summary and run.metrics_jsonl.exists():
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
        summary = run.summary(lenient=True)
    return _stopped_by(summary) or status


def _stopped_by(summary: dict[str, Any]) -> int | None:
    if summary.get("status") != "interrupted":
        return None
    words = str(summary.get("reason", "")).split()
    return 128 + int(words[-1]) if words and words[-1].isdecimal() else 128 + signal.SIGTERM
