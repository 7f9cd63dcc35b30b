"""Processes of a world that its launcher has left running on this host.

Open MPI's mpirun leaves the ranks of its own host running when it is killed, or when it gives up a
host that does not answer. They end themselves (``drivers/orphan.py``), the server after it has
saved the run; what does not is ended here, so that nothing is left beside the next start. On other
hosts mpirun's daemons see to that.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mpi_dcasgd.drivers.world import Launch

MARK = "MPI_DCASGD_WORLD"
"""A variable in the environment of all processes of a world on this host."""

_WORKER_S = 10.0
_SERVER_S = 120.0  # it may have a large checkpoint to write
_LOOK_S = 0.05


def end_leftovers(
    mark: str, *, at_once: bool = False, worker_s: float = _WORKER_S, server_s: float = _SERVER_S
) -> list[int]:
    """Wait until no process of a world is left on this host; kill those that stay too long.

    Args:
        mark: Value of the variable.
        at_once: Do not wait.
        worker_s: Seconds that they may take to end themselves.
        server_s: Seconds that rank 0 may.

    Returns:
        The processes that were killed.
    """
    begun = time.monotonic()
    killed: list[int] = []
    while found := list(_marked(mark)):
        waited_s = time.monotonic() - begun
        for pid, rank in found:
            late = at_once or waited_s >= (server_s if rank == 0 else worker_s)
            if late and pid not in killed and _kill(pid, mark):
                killed.append(pid)
        if waited_s >= server_s + worker_s:  # not even that ends what waits for a dead disk
            print(f"still there after {waited_s:.0f} s: {found}", file=sys.stderr)
            break
        time.sleep(_LOOK_S)
    return killed


class Server:
    """Rank 0 of a world, as seen from outside.

    Args:
        mark: Value of the variable.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._seen = False

    def gone(self) -> bool:
        """Return whether it was on this host when somebody asked, and has ended since."""
        runs = any(rank == 0 for _, rank in _marked(self._mark))
        self._seen = self._seen or runs
        return self._seen and not runs


def _kill(pid: int, mark: str) -> bool:
    """Kill a process if it has the mark at this very moment: its number may be another's by now."""
    if pid in (1, os.getpid(), os.getppid()) or not mark:
        return False
    try:
        if f"{MARK}={mark}".encode() not in _variables(Path("/proc", str(pid))):
            return False
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return False
    return True


def _marked(mark: str) -> Iterator[tuple[int, int]]:
    """Yield number and rank of this user's processes with the mark; -1 where it is no rank."""
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = _variables(folder)
            if wanted not in words or _is_dead(folder):
                continue
        except OSError:  # another user's, or it has ended
            continue
        pairs = (word.decode(errors="replace").partition("=") for word in words)
        launch = Launch.of({name: value for name, _, value in pairs})
        yield int(folder.name), launch.rank if launch.launcher else -1


def _variables(folder: Path) -> list[bytes]:
    return (folder / "environ").read_bytes().split(b"\0")


def _is_dead(folder: Path) -> bool:
    return (folder / "stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
