"""Benchmark of a rank with a core of its own that waits: what that costs, and how soon it answers.

    mpirun -n 2 --bind-to none python -m mpi_dcasgd.tools.bench.idle

Rank 1 sends a small message now and then, with the time in it. Rank 0 waits for it as a server
does for pushes.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from mpi_dcasgd.drivers import mpi_variables
from mpi_dcasgd.drivers.backoff import SPIN_S, wait_until

MESSAGES = 240
_GAP_S = (0.15, 0.35)  # longer than it takes a rank to hold itself for idle


@dataclass(frozen=True)
class Idle:
    """Cost of waiting.

    Attributes:
        share: Processor time over time.
        late_s: Seconds from the sending of each message to its being seen, sorted.
    """

    share: float
    late_s: Sequence[float]

    def __str__(self) -> str:
        late_us = [1e6 * one for one in self.late_s]
        return (
            f"{100 * self.share:.1f} % of a core; a message is seen after {median(late_us):.0f} us "
            f"(median), {late_us[int(0.9 * len(late_us))]:.0f} (nine of ten), {late_us[-1]:.0f}"
        )


def measure(
    comm: Any, messages: int = MESSAGES, gap_s: tuple[float, float] = _GAP_S
) -> Idle | None:
    """Wait for messages on rank 0 that rank 1 of the same host sends.

    Args:
        comm: A communicator of two ranks.
        messages: Number of messages.
        gap_s: Least and largest seconds between two.

    Returns:
        What rank 0 found; None on rank 1.
    """
    word = np.zeros(1)
    comm.Barrier()
    if comm.rank:
        gaps = random.Random(1)
        for _ in range(messages):
            time.sleep(gaps.uniform(*gap_s))
            word[0] = time.monotonic()
            comm.Send(word, 0)
        return None
    late_s = []
    spent_s, begun_s = time.process_time(), time.monotonic()
    for _ in range(messages):
        wait_until(comm.Irecv(word, 1).Test, SPIN_S)
        late_s.append(time.monotonic() - word[0])
    share = (time.process_time() - spent_s) / (time.monotonic() - begun_s)
    return Idle(share, sorted(late_s))


def main() -> int:
    """Measure as a rank of a world of two."""
    with mpi_variables.for_start(asynchronous=True):
        from mpi4py import MPI
    if MPI.COMM_WORLD.size != 2:
        print("idle: start it with two ranks: mpirun -n 2 ...", file=sys.stderr)
        return 2
    if found := measure(MPI.COMM_WORLD):
        print(found, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
