"""The launcher that started this process: found, and ended where it must end its whole world."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

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


def _named(pid: int) -> tuple[str, int]:
    """Return the name of a process and the number of its parent; of none, an empty name."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", 0
    name, rest = told.partition("(")[2].rsplit(")", 1)
    state, parent = rest.split()[:2]
    return ("" if state == "Z" else name), int(parent)
