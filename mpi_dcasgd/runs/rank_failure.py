"""The end of a rank that fails: who else has to know of it, and where its reason is left."""

from __future__ import annotations

import socket
import sys
import time
import traceback
from typing import TYPE_CHECKING, NoReturn

from mpi_dcasgd.drivers import start_guard
from mpi_dcasgd.drivers.farewell import end_world
from mpi_dcasgd.drivers.meeting import Meeting, own_copy
from mpi_dcasgd.drivers.signals import leave
from mpi_dcasgd.drivers.startup import together
from mpi_dcasgd.drivers.world import Launch
from mpi_dcasgd.errors import DcasgdError, RanksLostError, StartError, UserError, WorkersLostError
from mpi_dcasgd.runs.run_end import record_failure

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpi_dcasgd.runs.rank import Rank

_OTHERS_END_S = 10.0
"""Seconds in which another rank ends the world after it has said why."""


def fail_together(comm: MPI.Intracomm | None, error: UserError) -> NoReturn:
    """Raise on every rank of a world none of whose ranks can read the job.

    A rank that simply exits has mpirun kill the others, the one that was to speak among them.
    """
    if comm is None:
        if Launch.of().size == 1:
            raise error
        try:
            from mpi4py import MPI

            start_guard.mpi_has_begun()
        except Exception:  # what a missing or broken MPI raises is not what is wrong here
            raise error from None
        ours = comm = MPI.COMM_WORLD
    else:
        ours = own_copy(comm)

    def fail() -> NoReturn:
        raise error

    try:
        together(Meeting(ours), fail)
    finally:
        if ours is not comm:
            ours.Free()
    raise error  # not reached: it has been raised


def leave_reason(rank: Rank, error: BaseException) -> None:
    """Leave no folder of a run that a user's mistake kept from beginning, and else the reason."""
    if rank.logger and isinstance(error, StartError):
        rank.logger.error("start-up failed", exc_info=error)
    if rank.recording and rank.in_step and isinstance(error, UserError):
        rank.recording.take_back(error)
    elif rank.recording:
        rank.recording.failed(error)
    elif rank.folder and isinstance(error, RanksLostError):
        if not error.told:  # it may be rank 0 that is lost
            record_failure(rank.folder, error)
    elif rank.folder and not (rank.in_step or rank.expendable):
        # Nor does rank 0 get to it when this one ends the world.
        record_failure(rank.folder, error, f"{_where(rank.comm)}: ")


def abort(comm: MPI.Intracomm, error: BaseException, rank: Rank | None) -> NoReturn:
    """End the whole job from one rank, or this rank alone, saying which rank, where and why."""
    where = _where(comm)
    if rank and rank.logger:
        rank.logger.error("%s failed", where, exc_info=error)
    status = getattr(error, "exit_status", 1)
    if isinstance(error, RanksLostError):
        if error.told:  # by another rank, which ends the world as well
            time.sleep(_OTHERS_END_S)
            leave(status)
        text = f"{type(error).__name__}: {error}"
        if rank and rank.folder and not rank.in_step:
            text += f"; to resume, rerun the same command with --run-dir {rank.folder.path}"
        print(text, file=sys.stderr, flush=True)
        end_world(comm, status)
        raise error  # not reached: the world ends
    if not isinstance(error, DcasgdError):  # those say all that there is to know
        traceback.print_exception(error)
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    print(f"{where}: {text}", file=sys.stderr, flush=True)
    if rank and rank.expendable and _told_server(comm, text):
        leave(status)  # the run goes on, or the server ends it
    if isinstance(error, WorkersLostError):
        leave(error.exit_status)  # nobody is left to abort, and mpirun would call that a success
    end_world(comm, status)
    raise error  # not reached: the world ends


def _where(comm: MPI.Comm) -> str:
    return f"rank {comm.rank} on {socket.gethostname()}"


def _told_server(comm: MPI.Intracomm, text: str) -> bool:
    from mpi_dcasgd.drivers.notes import tell_failure  # needs an MPI that loads

    return tell_failure(comm, text)
