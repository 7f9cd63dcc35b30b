"""The processes of one run, found by a variable that all of them inherit, and nobody else's.

mpirun gives each rank a process group of its own, and ranks outlive an mpirun that was killed;
the environment is what they all share. A signal goes through a handle of the process, which is
looked at again when the handle is there: a number that another process has by now is not hit.
"""

from __future__ import annotations

import os
import resource
import signal
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mpi_dcasgd.drivers.world import Launch

VARIABLE = "MPI_DCASGD_CHAOS"

_PROC = Path("/proc")
_SHARED = "/dev/shm/"
_POLL_S = 0.02


@dataclass(frozen=True)
class Process:
    """A process of a run.

    Attributes:
        pid: Its number.
        parent: That of its parent.
        rank: Its rank, or None where it is none; loaders of a rank have their rank's.
        words: Its command line.
    """

    pid: int
    parent: int
    rank: int | None
    words: tuple[str, ...]

    def __str__(self) -> str:
        rank = "" if self.rank is None else f"rank {self.rank}, "
        return f"{rank}process {self.pid}: {' '.join(self.words)[:120]}"

    def maps(self) -> str:
        """The files that it has mapped; empty if it is gone."""
        try:
            return (_PROC / str(self.pid) / "maps").read_text(errors="replace")
        except OSError:
            return ""


class Processes:
    """All processes of one run, by a mark in their environment."""

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex

    @property
    def environment(self) -> Mapping[str, str]:
        """The variable that marks a process and all that it starts."""
        return {VARIABLE: self._mark}

    def alive(self) -> list[Process]:
        """All of them that are no zombies."""
        found = []
        for folder in _PROC.iterdir():
            if folder.name.isdecimal() and (one := self._look(int(folder.name))):
                found.append(one)
        return found

    def ranks(self) -> dict[int, Process]:
        """The ranks, by number, and not what they have started."""
        found = [one for one in self.alive() if one.rank is not None]
        numbers = {one.pid for one in found}
        return {one.rank: one for one in found if one.parent not in numbers}  # type: ignore[misc]

    def send(self, process: Process, signum: int) -> bool:
        """Send a signal; return whether the process was there and is one of ours."""
        return self._act(process, lambda handle: signal.pidfd_send_signal(handle, signum))

    def limit_files(self, process: Process, size: int) -> bool:
        """Let a process make no file longer than ``size`` bytes; return whether it was there."""

        def limit(handle: int) -> None:
            _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, hard))

        return self._act(process, limit)

    def shared_memory(self) -> set[Path]:
        """The files in /dev/shm that any of them has mapped."""
        found: set[Path] = set()
        for process in self.alive():
            for line in process.maps().splitlines():
                place = line.find(_SHARED)
                if place >= 0 and not line.endswith("(deleted)"):
                    found.add(Path(line[place:]))
        return found

    def wait(self, timeout_s: float) -> list[Process]:
        """Wait until all are gone, at most so long; return those that are not."""
        deadline = time.monotonic() + timeout_s
        while (found := self.alive()) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return found

    def kill(self) -> None:
        """Kill all of them."""
        while found := self.alive():
            for process in found:
                self.send(process, signal.SIGKILL)
            self.wait(1.0)

    def _look(self, pid: int) -> Process | None:
        folder = _PROC / str(pid)
        try:
            content = (folder / "environ").read_bytes()
            if f"{VARIABLE}={self._mark}".encode() not in content.split(b"\0"):
                return None
            words = (folder / "cmdline").read_bytes().decode(errors="replace")
            # "pid (name) state parent": the name may hold blanks and parentheses.
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return None  # gone, or somebody else's
        pairs = (word.partition("=") for word in content.decode(errors="replace").split("\0"))
        launch = Launch.of({name: value for name, _, value in pairs})
        rank = launch.rank if launch.launcher else None
        return Process(pid, parent, rank, tuple(words.rstrip("\0").split("\0")))

    def _act(self, process: Process, act: Callable[[int], None]) -> bool:
        try:
            handle = os.pidfd_open(process.pid)
        except OSError:
            return False
        try:
            if self._look(process.pid) is None:
                return False
            act(handle)
        except OSError:
            return False
        finally:
            os.close(handle)
        return True
