"""End of an asynchronous world: workers leave when the server says so, and never before.

A worker that left while the server still writes may have the launcher end the server with it. The
server takes leave of those that are there; nobody waits for one that died or hangs. MPI cannot be
finalized beside a process that hangs, so such a world is ended by MPI_Abort, once all is written.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import stat
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn, TextIO

import numpy as np

from mpi_dcasgd.drivers.backoff import Backoff
from mpi_dcasgd.drivers.launcher_above import find_launcher
from mpi_dcasgd.drivers.signals import leave, outlives_deaths, sleep_for_ever
from mpi_dcasgd.drivers.topology import SERVER
from mpi_dcasgd.server.message import Tag

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpi_dcasgd.drivers.notes import ServerWatch

_LEAVE_S = 10.0
"""Seconds for which workers that have been told to stop may take no notice of the end."""

_HEARD_S = 1.0
"""Seconds that the launcher has to read what this process has printed, before MPI_Abort."""

_LAUNCHER_S = 5
"""Seconds that the launcher has to end a world after MPI_Abort, before it is ended itself."""

_END_LAUNCHER = f"""
sleep {_LAUNCHER_S}
for signal in TERM KILL; do
    test "$(cat /proc/$0/comm)" = "$1" && kill -$signal "$0" && sleep 10
done
"""

_broken: list[str] = []
"""Who hangs, for the end of this process; there is one world in a process's life."""


def take_leave(peers: Iterable[tuple[MPI.Comm, int]], hung: str = "") -> bool:
    """Let the workers that are there go, as the server.

    Args:
        peers: Communicator and rank of each of those workers.
        hung: Names of those that hang and keep MPI from ending by itself.

    Returns:
        Whether all of them are there and have heard it.
    """
    from mpi4py import MPI

    word = np.array([bool(hung)], dtype=np.int32)
    waiting = [(rank, comm.Issend(word, dest=rank, tag=Tag.END)) for comm, rank in peers]
    deadline, backoff = time.monotonic() + _LEAVE_S, Backoff()
    while waiting and time.monotonic() < deadline:
        for each in list(waiting):
            with suppress(MPI.Exception):  # it has died since, and needs no leave
                if not each[1].Test():
                    continue
            waiting.remove(each)
        backoff.pause()
    if waiting:
        hung = ", ".join(filter(None, (hung, *(f"rank {rank}" for _, rank in waiting))))
    if hung:
        _break(hung)
    return not hung


def await_leave(comm: MPI.Comm, spin_s: float, watch: ServerWatch) -> bool:
    """Wait, as a worker, until the server has finished; return whether somebody hangs.

    Args:
        comm: The world.
        spin_s: Seconds that a wait polls before it sleeps.
        watch: Over the server.

    Raises:
        RanksLostError: The server died or hangs.
    """
    word = np.zeros(1, dtype=np.int32)
    watch.wait(comm.Irecv(word, source=SERVER, tag=Tag.END).Test, spin_s)
    if word[0]:
        _break("another worker")
    return bool(word[0])


def world_is_broken() -> bool:
    """Return whether a process of this world hangs, so that MPI_Finalize would hang as well."""
    return bool(_broken)


def end_broken_world(status: int) -> NoReturn:
    """End this process, and on rank 0 the whole world, with an exit status."""
    from mpi4py import MPI

    logging.shutdown()
    sys.stdout.flush()
    if MPI.COMM_WORLD.rank == SERVER:
        print(
            f"{_broken[0]} hangs or has gone, so MPI_Abort ends the processes; all files are "
            "complete",
            file=sys.stderr,
            flush=True,
        )
        end_world(MPI.COMM_WORLD, status)
    elif outlives_deaths():
        leave(status)
    sleep_for_ever()


def end_world(comm: MPI.Comm, status: int) -> None:
    """End all processes of a world, from one of them, with an exit status.

    A fault-tolerant Open MPI (5.0.11) has been seen to print that MPI_Abort was called, and to do
    nothing for twenty minutes; ``_LAUNCHER_S`` later the launcher above this process is ended.
    MPICH's (4.3) throws away what it has not read of the output, the reason for the end among it.
    """
    for stream in (sys.stdout, sys.stderr):
        await_reader(stream)
    launcher = find_launcher()
    if outlives_deaths() and launcher:
        with suppress(OSError):
            subprocess.Popen(
                ["/bin/sh", "-c", _END_LAUNCHER, str(launcher.pid), launcher.name],
                env={"PATH": os.defpath},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
    comm.Abort(status)  # which does not return


def await_reader(stream: TextIO | None, patience_s: float = _HEARD_S) -> bool:
    """Wait until the reader of a pipe has taken what was printed into it, for a while at most.

    Returns:
        Whether nothing is left in it, as in whatever is no pipe.
    """
    deadline = time.monotonic() + patience_s
    with suppress(OSError, ValueError, AttributeError):  # closed, or none of the system's files
        descriptor = stream.fileno()  # type: ignore[union-attr]
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return True
        while struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))[0]:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)  # the kernel has no event for a pipe that is read
    return True


def _break(hung: str) -> None:
    if not _broken:
        atexit.register(_at_exit)  # before MPI's own end: what is registered last comes first
    _broken.append(hung)


def _at_exit() -> None:
    end_broken_world(1 if getattr(sys, "last_value", None) is not None else 0)
