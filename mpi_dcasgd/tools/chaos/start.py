"""One start of a run: launched, struck at the moments that are planned, and waited for."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.tools.chaos.hosts import HOST_FOLDERS
from mpi_dcasgd.tools.chaos.plan import ELSEWHERE, Fault
from mpi_dcasgd.tools.chaos.processes import Processes
from mpi_dcasgd.tools.chaos.strike import Striker, Struck
from mpi_dcasgd.tools.chaos.watch import Watch
from mpi_dcasgd.tools.launch.exit_status import RunEnd

POLL_S = 0.01
"""Seconds between two looks; the kernel has no event for most of what is looked for."""
AFTER_S = 5.0
"""Seconds for which processes may outlive the launcher that started them."""
_SHARED_EVERY_S = 0.5
_SESSIONS = "PRTE_MCA_prte_tmpdir_base"


@dataclass
class Start:
    """One start of a run, and its end.

    Attributes:
        status: Exit status of `mpi-dcasgd run`; None if it hung and was killed.
        told: The status that suits the summary of this start; None where it has written none.
        seconds: From its start to its end.
        struck: Faults that were carried out.
        left: Processes that outlived it, in words.
        files: Files that it left in /dev/shm and in TMPDIR; they are removed.
        output: What it printed.
    """

    status: int | None
    told: int | None
    seconds: float
    struck: list[Struck] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    output: str = ""

    @property
    def hung(self) -> bool:
        """True if it did not end within the bound."""
        return self.status is None

    @property
    def completed(self) -> bool:
        """True if the run is complete."""
        return self.told == 0


@dataclass(frozen=True)
class Bounds:
    """Seconds that are waited for.

    Attributes:
        start_s: For a start to end in which no fault strikes.
        end_s: For a start to end after the last fault.
        patience_s: After which the run gives up a rank that hangs.
    """

    start_s: float
    end_s: float
    patience_s: float


def run_start(
    argv: Sequence[str],
    folder: RunFolder,
    faults: list[Fault],
    bounds: Bounds,
    *,
    total: int,
    output: Path,
    temporary: Path,
    environment: Mapping[str, str] | None = None,
) -> Start:
    """Start a run and wait for its end; nothing of it is left running, whatever happens.

    Args:
        argv: The command.
        folder: Its run folder.
        faults: Those that are to come; the ones that strike are removed.
        bounds: Seconds that are waited for.
        total: Tickets of the run.
        output: File for what it prints.
        temporary: Folder for its temporary files, which nobody else uses.
        environment: Variables beside this process's.
    """
    processes = Processes()
    watch, end = Watch(folder, processes, output, total), RunEnd(folder.path)
    variables = {**os.environ, "TMPDIR": str(temporary), **processes.environment}
    variables.pop(_SESSIONS, None)  # Open MPI's folder for temporary files is to be this one, too
    began = time.monotonic()
    with output.open("wb") as stream:
        process = subprocess.Popen(
            argv,
            env={**variables, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for this process
        )
    try:
        attendant = _Attendant(process, processes, folder, watch, bounds)
        status = attendant.attend(faults, began)
        left = [] if status is None else processes.wait(AFTER_S)
    finally:
        processes.kill()
        process.wait()
    # What was killed for hanging, or cannot be reached any more, could not clean up.
    apart = any(one.fault.kind == ELSEWHERE for one in attendant.struck)
    files = [] if status is None or apart else _left_files(attendant.shared, temporary)
    _remove(attendant.shared, temporary)
    return Start(
        status=status if status is None or status >= 0 else 128 - status,
        told=end.status(),
        seconds=time.monotonic() - began,
        struck=attendant.struck,
        left=[str(one) for one in left],
        files=files,
        output=watch.text(),
    )


class _Attendant:
    """Watches one start, strikes, and notes what is said of it."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        processes: Processes,
        folder: RunFolder,
        watch: Watch,
        bounds: Bounds,
    ) -> None:
        self._process = process
        self._processes = processes
        self._watch = watch
        self._bounds = bounds
        self._striker = Striker(processes, folder, bounds.patience_s)
        self._next_shared = 0.0
        self.struck: list[Struck] = []
        self.shared: set[Path] = set()

    def attend(self, faults: list[Fault], began: float) -> int | None:
        """Return the start's exit status, or None if it was not there in time."""
        while (status := self._process.poll()) is None:
            now = time.monotonic()
            self._look_for_shared_memory(now)
            if faults and self._watch.due(faults[0]):
                self._strike(faults.pop(0))
            self._follow(now)
            last = self.struck[-1] if self.struck and not faults else None
            limit = last.at_s + self._bounds.end_s if last else began + self._bounds.start_s
            if now > limit:
                return None
            time.sleep(POLL_S)
        self._follow(time.monotonic())
        return status

    def _look_for_shared_memory(self, now: float) -> None:
        """Note the shared memory that is there, until training has begun and all of it is.

        It takes time, in which the moment of a fault would pass.
        """
        if now >= self._next_shared:
            self._next_shared = math.inf if self._watch.pushes() else now + _SHARED_EVERY_S
            self.shared |= self._processes.shared_memory()

    def _strike(self, fault: Fault) -> None:
        if self._next_shared < math.inf:
            self._look_for_shared_memory(now=self._next_shared)
        struck = Struck(
            fault,
            at_s=time.monotonic(),
            heard=len(self._watch.text()),
            pushes=self._watch.pushes(),
            ending=self._watch.ending,
        )
        self._striker.strike(struck)
        self.struck.append(struck)

    def _follow(self, now: float) -> None:
        """Let those go on whose pause is over; note what is named."""
        for struck in self.struck:
            self._striker.go_on(struck)
            pattern = struck.pattern
            if pattern and struck.named_s is None and self._watch.names(pattern, struck.heard):
                struck.named_s = now - struck.at_s


def _left_files(shared: Iterable[Path], temporary: Path) -> list[str]:
    """The files that a start has left: those of shared memory, and what is highest in TMPDIR."""
    for folder in sorted(temporary.rglob(HOST_FOLDERS), reverse=True):
        with suppress(OSError):  # something is left in it
            folder.rmdir()
    found = [str(path) for path in sorted(shared) if path.exists()]
    return [*found, *(f"TMPDIR/{path.name}" for path in sorted(temporary.iterdir()))]


def _remove(shared: Iterable[Path], temporary: Path) -> None:
    for path in shared:
        path.unlink(missing_ok=True)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(exist_ok=True)
