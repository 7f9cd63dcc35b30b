"""Watch runs from another shell: nothing but their folders is read, and nothing is touched."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.learning.settings import Seconds
from mpi_dcasgd.record.rate_limit import exceeded_at_the_end
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.study_folder import StudyFolder
from mpi_dcasgd.runs.arguments import check_arguments
from mpi_dcasgd.runs.result import Run
from mpi_dcasgd.tools.locks import is_at_work
from mpi_dcasgd.tools.run_status import RunStatus, folder_status

_WARNINGS = 8


@dataclass
class Watched:
    """One run as far as its events have been read.

    Attributes:
        status: Its state, epoch and result.
        epochs: Epochs in all; None before the run has begun.
        progress: The newest progress event.
        eta_s: Seconds to go at the present rate; None if that cannot be told.
        warnings: The newest warnings and faults, oldest first.
    """

    status: RunStatus
    epochs: float | None = None
    progress: Mapping[str, Any] = field(default_factory=dict)
    eta_s: float | None = None
    warnings: Sequence[str] = ()

    @property
    def done(self) -> float:
        """Share of the epochs that are done."""
        if self.status.state == "done":
            return 1.0
        return min(1.0, (self.status.epoch or 0.0) / self.epochs) if self.epochs else 0.0


class _Events:
    """The events of one run, read on from where the last look ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._forget()

    def _forget(self) -> None:
        self.start: dict[str, Any] = {}
        self.progress: dict[str, Any] = {}
        self.warnings: list[str] = []

    def look(self) -> None:
        """Read what has come since."""
        try:
            if self._path.stat().st_size < self._offset:  # resumed, or begun anew
                self._offset = 0
                self._forget()
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                content = file.read()
        except OSError:
            return  # not there yet
        whole = content.rfind(b"\n") + 1
        self._offset += whole
        for line in content[:whole].splitlines():
            try:
                self._take(json.loads(line))
            except ValueError:
                continue

    def _take(self, event: Any) -> None:
        kind = event.get("event") if isinstance(event, dict) else None
        if kind in ("start", "resume"):
            self.start = event
        elif kind == "progress":
            self.progress = event
        elif kind in ("warning", "fault"):
            self.warnings = [*self.warnings, str(event.get("text", ""))][-_WARNINGS:]


def watch(folder: Path | str | Run, every_s: Seconds = 2.0) -> Iterator[list[Watched]]:
    """Look at a run, or at all runs of a study, again and again until they have ended.

    Args:
        folder: A run, its folder, or a study's.
        every_s: Seconds between two looks.

    Yields:
        All runs, in the order of ``status``. At the last look none is active or waiting, and no
        comparison on this host is about to start one.

    Raises:
        RunFolderError: There is no such folder, or nothing in it.

    Example:
        >>> for runs in watch("runs/digits-asgd"):  # doctest: +SKIP
        ...     print([f"{run.status.name}: {run.done:.0%}" for run in runs])
    """
    check_arguments(watch, locals())
    path = folder.path if isinstance(folder, Run) else Path(folder)
    events: dict[str, _Events] = {}
    while True:
        seen = [_look(path, status, events) for status in folder_status(path)]
        yield seen
        states = {each.status.state for each in seen}
        if not states & {"running", "pending"} and not is_at_work(StudyFolder(path)):
            return
        time.sleep(every_s)


def _look(path: Path, status: RunStatus, events: dict[str, _Events]) -> Watched:
    folder = RunFolder(path)
    if not folder.is_run():
        folder = RunFolder(path / status.name)
    known = events.setdefault(status.name, _Events(folder.metrics_jsonl))
    known.look()
    start, progress = known.start, known.progress
    epochs = start.get("epochs")
    eta_s = None
    if status.state == "running" and start.get("driver") not in ("simulator", "replay"):
        left = (epochs or 0) * (start.get("num_samples") or 0) - (progress.get("samples") or 0)
        rate = progress.get("samples_per_s") or 0
        eta_s = left / rate if rate > 0 and math.isfinite(left) else None
    return Watched(status, epochs, progress, eta_s, (*known.warnings, *_too_large(folder)))


def _too_large(folder: RunFolder) -> list[str]:
    """Say that the rate was too large for the curvature that somebody has measured since."""
    try:
        text = exceeded_at_the_end(folder.sharpness())
    except RunFolderError:
        return []
    return [text] if text else []
