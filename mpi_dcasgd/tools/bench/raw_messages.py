"""The bare messages of an asynchronous run: MPI's own wait, and nothing done to them.

Every message is as long as a real one and lies in the same kind of memory. A worker sends a push
and waits for the reply; the server answers each push as soon as it is there.
"""

from __future__ import annotations

import time

from mpi4py import MPI

from mpi_dcasgd.drivers.topology import SERVER, Topology
from mpi_dcasgd.server.message import Message, Tag


def serve(comm: MPI.Comm, world: Topology, size: int, rounds: int) -> float:
    """Answer every worker so many times, as the server; return the seconds that it took.

    Args:
        comm: Of all ranks, which wait for each other first.
        world: Its topology.
        size: Elements of a vector.
        rounds: Messages to and fro with each worker.
    """
    workers = range(world.num_workers)
    inbox, outbox = ([Message(size) for _ in workers] for _ in range(2))
    receives = [
        comm.Recv_init(inbox[w].raw, source=world.rank_of(w), tag=Tag.PUSH) for w in workers
    ]
    sends = [comm.Send_init(outbox[w].raw, dest=world.rank_of(w), tag=Tag.REPLY) for w in workers]
    left = [rounds for _ in workers]
    for receive in receives:
        receive.Start()
    comm.Barrier()
    started = time.perf_counter()
    while any(left):
        for worker in MPI.Request.Waitsome(receives) or ():
            left[worker] -= 1
            sends[worker].Wait()
            if left[worker]:
                receives[worker].Start()
            sends[worker].Start()
    MPI.Request.Waitall(sends)
    spent_s = time.perf_counter() - started
    for request in (*receives, *sends):
        request.Free()
    return spent_s


def push_and_pull(comm: MPI.Comm, size: int, rounds: int) -> None:
    """Send so many pushes, and wait for the reply of each, as a worker.

    Args:
        comm: As for ``serve``; so are the others.
        size: Elements of a vector.
        rounds: Messages to and fro.
    """
    push, reply = Message(size), Message(size)
    push.vector.fill_(1e-3)
    receive = comm.Recv_init(reply.raw, source=SERVER, tag=Tag.REPLY)
    send = comm.Send_init(push.raw, dest=SERVER, tag=Tag.PUSH)
    comm.Barrier()
    for _ in range(rounds):
        receive.Start()
        send.Start()
        receive.Wait()
        send.Wait()
    receive.Free()
    send.Free()
