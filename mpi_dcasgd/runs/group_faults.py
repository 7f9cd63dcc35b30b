"""Faults of a synchronous group: a rank that hangs or dies, and replicas that are unequal."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from logging import Logger
from typing import TYPE_CHECKING

from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.collective import collectively
from mpi_dcasgd.drivers.conductor import Conductor, weights_sha256
from mpi_dcasgd.drivers.farewell import end_world
from mpi_dcasgd.drivers.group_watch import GroupWatch
from mpi_dcasgd.drivers.meeting import Meeting
from mpi_dcasgd.drivers.signals import StopFlag, leave, outlives_deaths
from mpi_dcasgd.errors import ProtocolError, RanksLostError
from mpi_dcasgd.learning.layout import FlatLayout
from mpi_dcasgd.record.environment import RankPlace
from mpi_dcasgd.runs.recording import Recording
from mpi_dcasgd.runs.run_end import reason_of

if TYPE_CHECKING:
    import torch
    from mpi4py import MPI

_SAVE_S = 120.0
"""Seconds in which the state is saved before the world is ended."""
_KNOWN_S = 2.0
"""Seconds in which MPI knows of a death that a reducer has met with."""


def watchers(meeting: Meeting, job: Job) -> MPI.Comm | None:
    """Make the communicator of the watch over a synchronous group; every rank must call this.

    Args:
        meeting: Of the group.
        job: How patient to be.

    Returns:
        The communicator, or None if there is nobody to watch or MPI does not allow it.

    Raises:
        RanksLostError: On all ranks that are left, if one died or hangs meanwhile.
    """
    from mpi4py import MPI

    several = MPI.Query_thread() == MPI.THREAD_MULTIPLE  # or a caller has started MPI otherwise
    if meeting.size == 1 or job.faults.patience == "never":
        return None
    meeting.doing = "beginning to watch over the group"
    if not all(meeting.allgather(several)):
        return None
    return collectively(meeting, meeting.comm.Dup)


def watch_group(
    own: MPI.Comm,
    job: Job,
    places: Sequence[RankPlace],
    stop: StopFlag,
    logger: Logger,
    records: tuple[Recording, Conductor] | None,
) -> GroupWatch:
    """Begin to watch over a synchronous group.

    Args:
        own: What ``watchers`` made.
        job: How patient to be.
        places: Host of each rank.
        stop: Has the watch be less patient.
        logger: This rank's log.
        records: On the rank that records, who does so.
    """
    names = [f"rank {place.rank} on {place.host}" for place in places]

    def save(text: str, missing: Sequence[str], failures: list[str]) -> None:
        try:
            logger.error(text)
            if records:
                recording, conductor = records
                reason = "; ".join(filter(None, (text, reason_of(stop))))
                recording.break_off(conductor, text, missing, reason)
            failures.clear()
        except BaseException as error:
            failures[:] = [f"{type(error).__name__}: {error}"]

    def found(text: str, missing: Sequence[str]) -> None:
        status = 128 + (stop.signum or signal.SIGTERM)
        failures = [f"that took longer than {_SAVE_S:g} s"]
        # The disk may be what hangs.
        saving = threading.Thread(target=save, args=(text, missing, failures), daemon=True)
        saving.start()
        saving.join(_SAVE_S)
        if failures:
            status = 1
            text = f"{text}; what is known could not be saved: {failures[0]}"
        print(f"{text}; the run ends, and can be resumed", file=sys.stderr, flush=True)
        end_world(own, status)
        leave(status)  # not reached: the world ends

    watch = GroupWatch(own, job.faults, names, stop, found)
    if records:
        records[1].while_evaluating(watch.alive)
    return watch


@contextmanager
def naming_the_dead(
    comm: MPI.Comm,
    places: Sequence[RankPlace],
    watch: GroupWatch | None,
    conductor: Conductor | None,
) -> Iterator[None]:
    """Tell why the steps of a group end with an error: a reducer does not know who died.

    Args:
        comm: The group.
        places: Host of each rank.
        watch: Of the group, if there is one.
        conductor: On the rank that records; it saves the state as after the last whole step.

    Raises:
        RanksLostError: Another rank died or hangs.
    """
    try:
        yield
    except Exception as error:
        if watch and watch.told:
            raise RanksLostError("another rank hangs", told=True) from error
        dead = _dead(comm) if outlives_deaths() else []
        if not dead:
            raise
        if conductor:
            conductor.stopping(wait=True)
        names = ", ".join(f"rank {rank} on {places[rank].host}" for rank in dead)
        first = min(set(range(comm.size)) - set(dead))
        raise RanksLostError(f"{names} died", told=comm.rank != first) from error


def _dead(comm: MPI.Comm) -> list[int]:
    """Return the ranks that died, for which MPI may need a moment."""
    from mpi_dcasgd.drivers.deaths import failed_ranks

    deadline = time.monotonic() + _KNOWN_S
    while not (dead := failed_ranks(comm)) and time.monotonic() < deadline:
        with suppress(Exception):  # MPI's: only to have it look
            comm.iprobe()
        time.sleep(0.01)
    return dead


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
