"""A rank of which another one is lost, before training or while its server is waited for.

The first argument says what happens; no rank loads PyTorch, which would take most of the time.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any

from mpi_dcasgd.drivers import start_guard
from mpi_dcasgd.drivers.signals import leave

RANK = int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))


def tell(error: Exception) -> None:
    """Print what this rank knows, in one write."""
    told = getattr(error, "told", None)
    sys.stdout.write(f"{RANK} {type(error).__name__} told={told}: {error}\n")
    sys.stdout.flush()


def killed_before_mpi() -> None:
    """Rank 1 is killed before it comes to MPI_Init."""
    start_guard.begin_guard(RANK, lambda: 900.0)
    if RANK == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    start_guard.mpi_begins()
    from mpi4py import MPI

    MPI.COMM_WORLD.Barrier()


def killed_in_a_meeting() -> None:
    """Rank 1 is killed while the others wait for it."""
    from mpi4py import MPI

    from mpi_dcasgd.drivers.meeting import Meeting

    try:
        meeting = Meeting(MPI.COMM_WORLD)
        meeting.doing = "reading the data"
        if RANK == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        meeting.barrier()
    except Exception as error:
        tell(error)


def killed_server() -> None:
    """Rank 0 is killed while the others wait for a reply."""
    import numpy as np
    from mpi4py import MPI

    from mpi_dcasgd.drivers.fault_settings import FaultSettings
    from mpi_dcasgd.drivers.meeting import Meeting
    from mpi_dcasgd.drivers.notes import ServerWatch

    comm = MPI.COMM_WORLD
    Meeting(comm)
    if RANK == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    watch = ServerWatch(comm, FaultSettings(), "node7")
    reply = comm.Irecv(np.zeros(1), source=0, tag=1)
    try:
        watch.wait(reply.Test, 0.0)
    except Exception as error:
        tell(error)
    comm.Shrink().Barrier()  # mpirun ends the world with the first that leaves


def watch_server(comm: Any, answers: bool, wait_s: float) -> tuple[bool, str]:
    """Rank 1 watches over rank 0, which answers or not.

    Returns:
        Whether it was there for all the time, and what is said if it was not.
    """
    import numpy as np

    from mpi_dcasgd.drivers.fault_settings import FaultSettings
    from mpi_dcasgd.drivers.notes import Desk, ServerWatch

    word = np.zeros(1)
    if comm.rank == 0:
        desk, over = Desk([(comm, 1)]), comm.Irecv(word, source=1, tag=2)
        while not over.Test():
            if answers:
                desk.look()
            time.sleep(0.001)
        while comm.iprobe(source=1, tag=31):  # what was not answered is in nobody's way
            comm.recv(source=1, tag=31)
        return True, ""
    until = time.monotonic() + wait_s
    try:
        watch = ServerWatch(comm, FaultSettings(patience=0.1), "node7")
        watch.wait(lambda: time.monotonic() > until, 0.0)
        return True, ""
    except Exception as error:
        return False, str(error)
    finally:
        comm.Send(word, dest=0, tag=2)
        while comm.iprobe(source=0, tag=32):
            comm.recv(source=0, tag=32)


def lifelines(comm: Any) -> list[tuple[int, str]]:
    """The last rank's process ends, as far as its lifeline says; rank 0 reads at its desk."""
    from mpi_dcasgd.drivers.lifelines import Lifelines, hold_lifelines
    from mpi_dcasgd.drivers.meeting import Meeting
    from mpi_dcasgd.drivers.notes import Desk
    from mpi_dcasgd.drivers.topology import Topology

    world, meeting = Topology("asynchronous", comm.size - 1), Meeting(comm)
    line = hold_lifelines(meeting, world, world.worker_of(comm.rank))
    assert line is not None
    if comm.rank == comm.size - 1:
        line.close()
    found: list[tuple[int, str]] = []
    if isinstance(line, Lifelines):
        desk = Desk([(comm, rank) for rank in world.worker_ranks])
        desk.hold(line)
        until = time.monotonic() + 60.0
        while not found and time.monotonic() < until:
            found += [tuple(failure) for failure in desk.failures()]
            time.sleep(0.01)
    meeting.barrier()
    line.close()
    return found


def watch_group(comm: Any, signs: bool, wait_s: float) -> list[str]:
    """Rank 0 is between two steps for as long as rank 1 waits for it, with signs of life or not.

    Returns:
        What the watch of this rank has found, if anything.
    """
    from mpi_dcasgd.drivers import group_watch
    from mpi_dcasgd.drivers.fault_settings import FaultSettings
    from mpi_dcasgd.drivers.signals import StopFlag

    group_watch._ANSWER_S = 30.0  # a busy machine is not what is tested
    found: list[str] = []
    own, over = comm.Dup(), threading.Event()

    def tell(text: str, missing: Any) -> None:
        found.append(text)
        over.set()

    settings = FaultSettings(patience=0.2)
    watch = group_watch.GroupWatch(own, settings, ["rank 0 on a", "rank 1 on b"], StopFlag(), tell)
    watch.step()
    if comm.rank == 0:
        watch.stepped()
    else:
        watch.waits()
    until = time.monotonic() + wait_s
    while time.monotonic() < until and not over.wait(0.05):
        if signs:
            watch.alive()
    met = comm.Ibarrier()
    while not met.Test():
        if signs:
            watch.alive()
        time.sleep(0.01)
    watch.close()
    return found


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    leave(1)
