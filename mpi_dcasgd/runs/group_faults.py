"""Faults of a synchronous group: a rank that hangs, and replicas that are no longer equal."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from logging import Logger
from typing import TYPE_CHECKING

from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.conductor import Conductor, weights_sha256
from mpi_dcasgd.drivers.farewell import end_world
from mpi_dcasgd.drivers.group_watch import GroupWatch
from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.errors import ProtocolError
from mpi_dcasgd.learning.layout import FlatLayout
from mpi_dcasgd.record.environment import RankPlace
from mpi_dcasgd.runs.recording import Recording, reason_of

if TYPE_CHECKING:
    import torch
    from mpi4py import MPI


def watch_group(
    comm: MPI.Comm,
    job: Job,
    places: Sequence[RankPlace],
    stop: StopFlag,
    logger: Logger,
    records: tuple[Recording, Conductor] | None,
) -> GroupWatch | None:
    """Begin to watch over a synchronous group; every rank must call this.

    Args:
        comm: The group.
        job: How patient to be.
        places: Host of each rank.
        stop: Has the watch be less patient.
        logger: This rank's log.
        records: On the rank that records, who does so.

    Returns:
        The watch, or None if there is nobody to watch or MPI does not allow it.
    """
    from mpi4py import MPI

    several = MPI.Query_thread() == MPI.THREAD_MULTIPLE  # or a caller has started MPI otherwise
    if comm.size == 1 or job.faults.patience == "never" or not all(comm.allgather(several)):
        return None
    names = [f"rank {place.rank} on {place.host}" for place in places]
    own = comm.Dup()

    def found(text: str, missing: Sequence[str]) -> None:
        status = 128 + (stop.signum or signal.SIGTERM)
        try:
            logger.error(text)
            if records:
                recording, conductor = records
                reason = "; ".join(filter(None, (text, reason_of(stop))))
                recording.break_off(conductor, text, missing, reason)
            print(f"{text}; the run ends, and can be resumed", file=sys.stderr, flush=True)
        except BaseException as error:
            print(f"{text}; what is known could not be saved: {error}", file=sys.stderr, flush=True)
            status = 1
        finally:
            end_world(own, status)

    return GroupWatch(own, job.faults, names, stop, found)


def check_replicas(comm: MPI.Comm, weights: torch.Tensor, layout: FlatLayout) -> None:
    """Refuse a synchronous run whose ranks ended with different weights.

    Raises:
        ProtocolError: On every rank, with those that differ from rank 0.
    """
    names = comm.allgather(weights_sha256(weights, layout))
    if len(set(names)) > 1:
        apart = [rank for rank, name in enumerate(names) if name != names[0]]
        raise ProtocolError(
            f"the weights of ranks {apart} differ from rank 0's at the end of a synchronous "
            "run: the allreduce does not give every rank the same bits"
        )
