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
from mpi_dcasgd.drivers.farewell import await_reader
from mpi_dcasgd.drivers.signals import leave

RANK = int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))


def tell(error: Exception) -> None:
    """Print what this rank knows, in one write, and wait until mpirun has read it."""
    told = getattr(error, "told", None)
    sys.stdout.write(f"{RANK} {type(error).__name__} told={told}: {error}\n")
    sys.stdout.flush()
    await_reader(sys.stdout, 60)


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
        # The first to end may take the other with it, before it has said anything.
        if RANK == 0:
            MPI.COMM_WORLD.recv(source=2)
        else:
            MPI.COMM_WORLD.send(None, dest=0)


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


def watch_follower(comm: Any) -> tuple[list[bool], str]:
    """Rank 0 leads and watches over rank 1, which answers at first and then no more.

    Returns:
        Whether it answered, as long as that did not change, and what is said at last.
    """
    import numpy as np

    from mpi_dcasgd.drivers.crew import MpiCrew
    from mpi_dcasgd.drivers.fault_settings import FaultSettings
    from mpi_dcasgd.drivers.topology import Topology
    from mpi_dcasgd.learning.layout import FlatLayout
    from mpi_dcasgd.server.orders import ORDER_BYTES, CrewTag
    from mpi_dcasgd.server.shard import shards_of

    note = np.zeros(2, dtype=np.int64)
    if comm.rank == 1:
        for _ in range(2):  # orders to say that it is there, of which it hears one
            order = bytearray(ORDER_BYTES)
            comm.Recv(order, source=0, tag=CrewTag.ORDERS)
            if not note[1]:
                comm.Send(note, dest=0, tag=CrewTag.ARRIVALS)
            note[1] = 1
        return [], ""
    world = Topology("asynchronous", 1, servers=2)
    shards = shards_of(FlatLayout((), (), 32, 0), 2)
    crew = MpiCrew(comm, world, shards, FaultSettings(patience=0.1), ["a", "b"])
    answers: list[bool] = []
    try:
        while True:
            crew.move()
            answered = crew.watch()
            if answers[-1:] != [answered]:
                answers.append(answered)
            time.sleep(0.01)
    except Exception as error:
        return answers, str(error)
    finally:
        crew.close()


def last_reply(comm: Any) -> bool:
    """Rank 1 follows rank 0 and is told to end, before its last reply to rank 2 is received.

    Returns:
        On rank 0, whether it left all the same.
    """
    import numpy as np
    import torch

    from mpi_dcasgd.drivers.fault_settings import FaultSettings
    from mpi_dcasgd.drivers.mpi_follower import FollowerLoop
    from mpi_dcasgd.drivers.notes import ServerWatch
    from mpi_dcasgd.drivers.topology import Topology
    from mpi_dcasgd.learning.layout import FlatLayout
    from mpi_dcasgd.rules.algorithms import resolve_rule
    from mpi_dcasgd.server.follower import Follower
    from mpi_dcasgd.server.message import Tag
    from mpi_dcasgd.server.orders import CrewTag, Order, OrderKind
    from mpi_dcasgd.server.shard import shards_of

    size, done = 1 << 20, 41  # longer than what is sent without asking; a tag
    world = Topology("asynchronous", 1, servers=2)
    if comm.rank == 0:
        orders = [Order(OrderKind.LAST_REPLY, 0), Order(OrderKind.REPORT)]
        comm.Send(b"".join(order.pack() for order in orders), dest=1, tag=CrewTag.ORDERS)
        comm.Recv(np.zeros(2, dtype=np.int64), source=1, tag=CrewTag.ARRIVALS)
        comm.Send(Order(OrderKind.END).pack(), dest=1, tag=CrewTag.ORDERS)
        until, early = time.monotonic() + 0.3, False
        while not early and time.monotonic() < until:
            early = bool(comm.iprobe(source=1, tag=done))
        comm.send(None, 2, done)
        comm.recv(source=1, tag=done)
        return early
    if comm.rank == 1:
        shard = shards_of(FlatLayout((), (), 2 * size, 0), 2)[1]
        rule, none = resolve_rule("asgd"), torch.empty(0)
        follower = Follower(torch.ones(size), shard, rule, 1, none, "blocks")
        loop = FollowerLoop(comm, world, follower, ServerWatch(comm, FaultSettings(), "node7"))
        loop.run()
        loop.close()
        comm.send(None, 0, done)
    else:
        comm.recv(source=0, tag=done)
        comm.Recv(np.empty(size, dtype=np.float32), source=1, tag=Tag.REPLY)
    return False


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

    def meet() -> None:
        met = comm.Ibarrier()
        while not met.Test():
            if signs:
                watch.alive()
            time.sleep(0.01)

    settings = FaultSettings(patience=0.2)
    watch = group_watch.GroupWatch(own, settings, ["rank 0 on a", "rank 1 on b"], StopFlag(), tell)
    if comm.rank == 0:
        watch.step()
        watch.stepped()
    meet()  # so that the other does not wait for a step that is slow to begin
    if comm.rank == 1:
        watch.step()
        watch.waits()
    until = time.monotonic() + wait_s
    # The watch that finds somebody tells the others' of it.
    while time.monotonic() < until and not (over.wait(0.05) or watch.told):
        if signs:
            watch.alive()
    meet()
    watch.close()
    return found


def close_while_asking(comm: Any) -> list[str]:
    """Rank 0 has closed its watch when that of rank 1 asks it, and then rank 1 closes, too.

    Returns:
        What the watch of this rank has found, if anything.
    """
    from mpi_dcasgd.drivers import group_watch
    from mpi_dcasgd.drivers.fault_settings import FaultSettings
    from mpi_dcasgd.drivers.signals import StopFlag

    group_watch._ANSWER_S = 5.0
    found: list[str] = []
    settings, names = FaultSettings(patience=0.1), ["rank 0 on a", "rank 1 on b"]
    watch = group_watch.GroupWatch(
        comm.Dup(), settings, names, StopFlag(), lambda text, missing: found.append(text)
    )
    if comm.rank == 0:
        watch.close()
    comm.Barrier()
    if comm.rank == 1:
        watch.ends()
        while not watch._sent:  # it has asked
            time.sleep(0.001)
        watch.close()
    comm.Barrier()
    return found


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    leave(1)
