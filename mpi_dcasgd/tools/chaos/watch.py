"""Progress of a start as its files and its processes tell it: the moments at which faults strike.

Nothing waits for a time: a moment has come when what it means can be seen.
"""

from __future__ import annotations

import re
from pathlib import Path

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.tools.chaos.plan import Fault, Moment
from mpi_dcasgd.tools.chaos.processes import Process, Processes

_LIBRARIES = {"torch": "libtorch", "mpi": "libmpi"}
_LAST = 0.97
"""Share of the tickets from which on the last ones are under way."""

_SCAN_EVERY = 8
"""Looks of which one goes through all processes of the machine, which is dear."""


class Watch:
    """Observer of one start of a run. Make it before the start: what is there is of earlier ones.

    Args:
        folder: The run folder.
        processes: Those of the run.
        output: Where the start's output goes.
        total: Tickets of the run.
    """

    def __init__(self, folder: RunFolder, processes: Processes, output: Path, total: int) -> None:
        self._folder = folder
        self._processes = processes
        self._output = output
        self._total = total
        self._before = {path: _mark(path) for path in self._files()}
        self._ranks: dict[int, Process] = {}
        self._looks = 0
        self._trace: tuple[int | None, int] = (None, 0)

    def pushes(self) -> int:
        """Pushes that the trace holds, once this start has written to it; 0 before."""
        trace = self._folder.trace_bin
        if not self._fresh(trace):
            return 0
        mark = _mark(trace)
        if mark != self._trace[0]:
            try:
                self._trace = mark, len(self._folder.trace())
            except RunFolderError:  # it is being cut back at this moment
                return self._trace[1]
        return self._trace[1]

    @property
    def ending(self) -> bool:
        """Tell whether the end of the run has begun: its weights or its summary are there."""
        return self._fresh(self._folder.weights_pt) or self._fresh(self._folder.summary_json)

    def rank(self, number: int) -> Process | None:
        """The process of a rank, once there is one."""
        if number not in self._ranks:
            if self._looks % _SCAN_EVERY == 0:
                self._ranks.update(self._processes.ranks())
            self._looks += 1
        return self._ranks.get(number)

    def due(self, fault: Fault) -> bool:
        """Tell whether the moment of a fault has come."""
        moment = fault.moment
        if moment.stage == "training":
            pushes = self.pushes()
            return pushes > 0 and pushes >= moment.fraction * self._total
        if moment.stage == "start":
            return self._started(moment, fault.rank or 0)
        if moment.event == "last":
            return self.ending or self.pushes() >= _LAST * self._total
        files = {"weights": self._folder.weights_pt, "summary": self._folder.summary_json}
        aside = files[moment.event].with_suffix(files[moment.event].suffix + ".tmp")
        return self._fresh(files[moment.event]) or aside.exists()

    def names(self, pattern: str, since: int) -> bool:
        """Tell whether the output matches a pattern behind so many characters."""
        return re.search(pattern, self.text()[since:], re.DOTALL) is not None

    def text(self) -> str:
        """The output so far."""
        try:
            # Open MPI ends some of its lines with a zero.
            return self._output.read_text(errors="replace").replace("\0", "")
        except OSError:
            return ""

    def _started(self, moment: Moment, rank: int) -> bool:
        process = self.rank(rank)
        if process is None:
            return False
        if moment.event in _LIBRARIES:
            return _LIBRARIES[moment.event] in process.maps()
        if moment.event == "log":
            return self._fresh(self._folder.log(0))
        return moment.event == "process" or self._fresh(self._folder.metrics_jsonl)

    def _fresh(self, path: Path) -> bool:
        return _mark(path) not in (self._before[path], None)

    def _files(self) -> tuple[Path, ...]:
        folder = self._folder
        files = (folder.trace_bin, folder.metrics_jsonl, folder.weights_pt, folder.summary_json)
        return (*files, folder.log(0))


def _mark(path: Path) -> int | None:
    """Return when a file was changed; None where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
