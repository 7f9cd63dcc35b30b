"""End of a run: by its launcher's exit status, or by what its folder tells instead."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path
from typing import Any

from mpi_dcasgd.record.run_folder import RunFolder

_LAST_WORDS_S = 5.0
_NAMES = "|".join(known.name for known in signal.Signals)
_SIGNAL = re.compile(rf"stopped by (?:({_NAMES})\b|signal (\d+))")  # numbers: earlier versions'


class RunEnd:
    """End of this start as the run's folder tells it, whatever becomes of the launcher.

    Make it before the start: a summary that the folder holds already is an earlier start's, and
    says nothing of this one, even if this one fails without a summary of its own.

    Args:
        folder: The run folder, which may not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = RunFolder(folder)
        self._before = self._mark()

    def status(self) -> int | None:
        """The exit status that suits this start's summary; None as long as it has none."""
        summary = self._summary()
        if not summary:
            return None
        if summary.get("status") == "completed":
            return 0
        return _stopped_by(summary) or 1

    @property
    def summary(self) -> dict[str, Any]:
        """The summary that this start has written, or nothing."""
        return self._summary()

    @property
    def reason(self) -> str:
        """The reason of its end that the summary tells, if any."""
        return str(self._summary().get("reason", ""))

    @property
    def completed(self) -> bool:
        """True if this start has brought the run to its end."""
        return self._summary().get("status") == "completed"

    def exit_status(self, status: int) -> int:
        """Return a world's own exit status, or what the folder tells, where that says more.

        A completed run is a success, whatever its launcher makes of a worker that died or of a
        request to stop that came too late.
        When SLURM has ended Open MPI's daemons, and the ranks with them, mpirun (5.0.11) ends with
        0 or with a status of its own: so SLURM preempts.

        Args:
            status: The launcher's.
        """
        if self.completed:
            return 0
        if status > 128:
            return status
        summary = self._summary()
        deadline = time.monotonic() + _LAST_WORDS_S
        # mpirun does not wait for such ranks: they may be about to write it.
        while status == 0 and not summary and self._folder.metrics_jsonl.exists():
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
            summary = self._summary()
        return _stopped_by(summary) or status

    def _summary(self) -> dict[str, Any]:
        """The summary that this start has written, or nothing."""
        return {} if self._mark() == self._before else self._folder.summary(lenient=True)

    def _mark(self) -> tuple[int, int] | None:
        """Identity of the summary's file: it is replaced, and never changed."""
        try:
            found = self._folder.summary_json.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns


def _stopped_by(summary: dict[str, Any]) -> int | None:
    if summary.get("status") != "interrupted":
        return None
    told = _SIGNAL.search(str(summary.get("reason", "")))
    if told is None:
        return 128 + signal.SIGTERM
    return 128 + (int(told[2]) if told[2] else signal.Signals[told[1]])
