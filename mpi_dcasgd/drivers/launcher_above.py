"""The launcher that started this process: found, and ended where it must end its whole world."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mpi_dcasgd.drivers.world import Launch

_NAMES = ("mpirun", "mpiexec", "prterun", "prte", "prted")
_FARTHEST = 4  # a script or two may stand between
_AGAIN_S = 10.0
_LOOK_EVERY_S = 0.1


class LauncherAbove(NamedTuple):
    """Open MPI's mpirun, or its daemon on this host; the end of either ends the world."""

    pid: int
    name: str

    def alive(self) -> bool:
        """Return whether it still runs, and its number is not another process's by now."""
        return _named(self.pid)[0] == self.name

    def end(self) -> None:
        """End it, and with it all ranks; return when it has ended."""
        for signum in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + _AGAIN_S
            if self.alive():
                with suppress(OSError):
                    os.kill(self.pid, signum)
            while self.alive() and time.monotonic() < deadline:
                time.sleep(_LOOK_EVERY_S)


def find_launcher() -> LauncherAbove | None:
    """Return the launcher above this process, or None if there is none that is known here.

    Example:
        >>> find_launcher()  # outside of mpirun
    """
    pid = os.getppid()
    for _ in range(_FARTHEST):
        name, parent = _named(pid)
        if name in _NAMES:
            return LauncherAbove(pid, name)
        pid = parent
    return None


def stopped_rank(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Return a rank that a signal has stopped, of those that the launcher of a rank has started.

    Args:
        pid: Process number of that rank; the others have the same parent.
        proc: Folder of the processes.
    """
    parent = _status(proc / str(pid))[1]
    for folder in proc.glob("[0-9]*"):
        if parent and _status(folder) == ("T", parent):
            with suppress(OSError):  # it has just ended
                words = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
                launch = Launch.of(dict(word.partition("=")[::2] for word in words))
                if launch.launcher:
                    return launch.rank
    return None


def _status(folder: Path) -> tuple[str, int]:
    """Return the state of a process, and the number of its parent."""
    try:
        state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return "", 0
    return state, int(parent)


def _named(pid: int) -> tuple[str, int]:
    """Return the name of a process and the number of its parent; of none, an empty name."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", 0
    name, rest = told.partition("(")[2].rsplit(")", 1)
    state, parent = rest.split()[:2]
    return ("" if state == "Z" else name), int(parent)
