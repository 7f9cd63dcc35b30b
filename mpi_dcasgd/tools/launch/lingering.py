"""Wait for mpirun; end one that stays behind when its ranks have gone.

Open MPI 5.0.11 stayed behind in one of ten fault-tolerant worlds in which a rank had died and two
others then aborted: status 1. An mpirun at work has children: ranks, or what reaches other hosts.
With ranks on several hosts it may not notice that all have ended well, though their run's summary
is written; then the status is what that tells. When it ends a world of which a host is cut off it
waits for that host, for the quarter of an hour that TCP may take over bytes that nobody confirms:
where rank 0 is gone from this host, that is cut short, and the host is named in its place.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mpi_dcasgd.tools.launch.exit_status import RunEnd
from mpi_dcasgd.tools.launch.leftovers import Server
from mpi_dcasgd.tools.launch.unanswered import unanswered

_LOOK_EVERY_S = 5.0
_LINGER_S = 60.0  # ranks that have written their run's end need seconds at most to leave MPI
_SILENT_S = 10.0  # on a host that it reaches, mpirun ends ranks within a second
_KILL_AFTER_S = 10.0


@dataclass(frozen=True)
class Waited:
    """End of a launcher.

    Attributes:
        status: Its exit status, or that of its run where it had to be ended.
        lost: Hosts for which it waited then.
    """

    status: int
    lost: tuple[str, ...] = ()


def wait_for(
    world: subprocess.Popen[bytes], *, fault_tolerant: bool, end: RunEnd | None, server: Server
) -> Waited:
    """Wait until a launcher has ended, or has nothing left to do and is ended.

    Args:
        world: The launcher.
        fault_tolerant: Whether its world outlives a rank's death.
        end: The run's end, if the run has a folder.
        server: Rank 0.
    """
    childless = 0
    ended_at: float | None = None
    while True:
        try:
            return Waited(world.wait(timeout=_LOOK_EVERY_S))
        except subprocess.TimeoutExpired:
            pass
        if fault_tolerant:
            childless = 0 if _has_children(world.pid) else childless + 1
            if childless == 2:
                _end(world)
                return Waited(1)
        status = end.status() if end else None
        if status is None and not (end and server.gone()):
            continue
        ended_at = time.monotonic() if ended_at is None else ended_at
        stayed_s = time.monotonic() - ended_at
        lost = tuple(unanswered(world.pid)) if stayed_s >= _SILENT_S else ()
        if lost or stayed_s >= _LINGER_S:
            _tell(str(world.args[0]), stayed_s, status, lost)  # type: ignore[index]
            _end(world, at_once=bool(lost))
            return Waited(1 if status is None else status, lost)


def _tell(launcher: str, stayed_s: float, status: int | None, lost: tuple[str, ...]) -> None:
    state = f"waits for {', '.join(lost)}, which no longer answers," if lost else "is still running"
    whose, files = ("the run's", "; the run's files are complete")
    if status is None:
        whose, files = ("rank 0's", "")
    after = f"{stayed_s if lost else _LINGER_S:.2g} s after {whose} end"
    print(f"{launcher} {state} {after} and is stopped now{files}", file=sys.stderr)


def _end(world: subprocess.Popen[bytes], *, at_once: bool = False) -> None:
    """End a launcher; told in time, mpirun ends what it has started on other hosts, too.

    One that waits for a lost host has told the others already, and does not heed this.
    """
    world.terminate()
    try:
        world.wait(timeout=1 if at_once else _KILL_AFTER_S)
    except subprocess.TimeoutExpired:
        os.killpg(world.pid, signal.SIGKILL)
        world.wait()


def _has_children(pid: int) -> bool:
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended in the meantime
            if file.read_text():
                return True
    return False
