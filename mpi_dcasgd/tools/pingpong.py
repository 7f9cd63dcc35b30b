"""Time a message between two ranks, as the asynchronous driver sends them: persistent requests.

Started with two ranks as ``python -m mpi_dcasgd.tools.pingpong BYTES``; rank 0 prints JSON.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

_ROUNDS, _WARM_UP = 200, 20


def main(size: int) -> None:
    """Send ``size`` bytes to and fro."""
    from mpi4py import MPI

    from mpi_dcasgd.drivers.backoff import wait_until

    comm = MPI.COMM_WORLD
    other = 1 - comm.rank
    out, back = (np.zeros(max(1, size), np.uint8) for _ in range(2))
    send, receive = comm.Send_init(out, dest=other), comm.Recv_init(back, source=other)
    times = []
    for _ in range(_ROUNDS + _WARM_UP):
        started = time.perf_counter()
        receive.Start()
        if comm.rank == 0:
            send.Start()
        wait_until(receive.Test)
        if comm.rank == 1:
            send.Start()
        wait_until(send.Test)
        times.append(time.perf_counter() - started)
    send.Free()
    receive.Free()
    if comm.rank == 0:
        round_s = float(np.median(times[_WARM_UP:]))
        print(json.dumps({"bytes": size, "message_s": round_s / 2}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
