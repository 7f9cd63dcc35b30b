"""A rank of the world that ``doctor --ranks`` starts: times messages between rank 0 and the others.

Started as ``python -m mpi_dcasgd.tools.doctor.rank``; rank 0 prints JSON.
"""

from __future__ import annotations

import json
import socket
import time

import numpy as np

SIZES = {8: 500, 1 << 20: 100, 16 << 20: 10}
"""Bytes of a message, and how many go to and fro."""


def main() -> None:
    """Send messages of all sizes between rank 0 and each other rank, one pair at a time."""
    import mpi4py

    mpi4py.rc.thread_level = "funneled"
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    if comm.rank == 0:
        print(json.dumps({"ranks": comm.size}), flush=True)
    hosts = comm.gather(socket.gethostname(), root=0)
    rounds: dict[int, list[float]] = {size: [] for size in SIZES}
    for other in range(1, comm.size):
        comm.Barrier()
        if comm.rank in (0, other):
            for size, count in SIZES.items():
                peer = other if comm.rank == 0 else 0
                rounds[size].append(_round_s(comm, peer, size, count))
    if comm.rank == 0:
        assert hosts is not None
        found = {size: [min(times), max(times)] for size, times in rounds.items() if times}
        print(json.dumps({"hosts": sorted(set(hosts)), "round_s": found}), flush=True)


def _round_s(comm: object, peer: int, size: int, count: int) -> float:
    """Seconds of a message to and fro, the median of so many."""
    from mpi4py import MPI

    assert isinstance(comm, MPI.Intracomm)
    out, back = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    times = []
    for _ in range(count):
        started = time.perf_counter()
        if comm.rank == 0:
            comm.Send(out, peer)
            comm.Recv(back, peer)
        else:
            comm.Recv(back, peer)
            comm.Send(out, peer)
        times.append(time.perf_counter() - started)
    return float(np.median(times))


if __name__ == "__main__":
    main()
