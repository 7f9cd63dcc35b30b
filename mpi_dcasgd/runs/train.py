"""``mpi-dcasgd train``: one process of a run, whichever rank it turns out to be."""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from logging import Logger
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mpi_dcasgd import STARTED
from mpi_dcasgd.config.plan import world_of
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.sequential import run_sequential
from mpi_dcasgd.drivers.signals import StopFlag, leave, outlives_deaths
from mpi_dcasgd.drivers.simulation.injection import Injection
from mpi_dcasgd.drivers.simulation.slowed_task import SlowedTask
from mpi_dcasgd.drivers.world import Launch, pick_device
from mpi_dcasgd.errors import UserError, WorkersLostError
from mpi_dcasgd.learning.task import Task
from mpi_dcasgd.record.environment import RankPlace, git_state
from mpi_dcasgd.record.logs import close_logger, rank_logger
from mpi_dcasgd.runs.build import Workshop
from mpi_dcasgd.runs.rank import Rank, account_of, reason_of
from mpi_dcasgd.runs.recording import Recording
from mpi_dcasgd.runs.resume import AUTO, Standing

if TYPE_CHECKING:
    from mpi4py import MPI


def train(
    job: Job,
    *,
    run_dir: Path | None,
    argv: Sequence[str],
    overwrite: bool = False,
    resume: str = AUTO,
) -> int:
    """Train as the job says, as this process's rank of the world.

    Args:
        job: The checked job.
        run_dir: The run folder, or None to have one named after the job.
        argv: The command line, for the record.
        overwrite: Replace a finished run that ``run_dir`` holds.
        resume: What to go on from (``resuming.find_checkpoint``).

    Returns:
        The exit status: 0, or 128 + n if signal n ended training early.

    Raises:
        UserError: On rank 0, where start-up failed on any rank.
    """
    launch = Launch.of()
    # Before MPI: this starts processes, which some networks' MPI does not survive.
    git = git_state() if launch.rank == 0 else None
    stop = StopFlag()
    stop.listen()
    mode = job.mode

    def record() -> Recording:
        return Recording(job, run_dir, argv, git, overwrite=overwrite, resume=resume)

    if mode == "sequential":
        world_of(job, launch.size, origin=launch.launcher or "")
        return _train_alone(record(), stop)
    import mpi4py

    # Only the main thread calls MPI in an asynchronous run; Horovod has a thread of its own.
    mpi4py.rc.thread_level = "multiple" if mode == "synchronous" else "funneled"
    # That thread waits within Open MPI, which polls: on a processor that others want, too, a group
    # is several times as fast if it lets them. Where nobody does, it costs nothing measurable.
    os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    rank = Rank(comm, job, stop, STARTED)
    try:
        rank.set_up(record)
    except UserError:
        if rank.recording:
            rank.recording.take_back()
        # All ranks have the same error; one of them is enough to say it.
        if comm.rank == 0:
            raise
        return UserError.exit_status
    except BaseException as error:
        _abort(comm, error, rank.logger)
    try:
        rank.train_synchronously() if mode == "synchronous" else rank.train_asynchronously()
    except BaseException as error:
        _abort(comm, error, rank.logger)
    if outlives_deaths():
        leave(_status(stop))
    return _status(stop)


def _train_alone(recording: Recording, stop: StopFlag) -> int:
    logger = rank_logger(recording.folder, 0)
    try:
        return _train_sequentially(recording, stop, logger)
    except UserError:
        recording.take_back()
        raise
    finally:
        close_logger(logger)


def _train_sequentially(recording: Recording, stop: StopFlag, logger: Logger) -> int:
    job = recording.job
    device = pick_device(job.device, 0)
    workshop = Workshop.open(job, device, standing=Standing.of(recording.checkpoint, 1))
    server = workshop.server(1, device)
    task = workshop.task(workshop.flat_model(device, server.slots[0].snapshot))
    task.warm_up()
    place = RankPlace(rank=0, role="trainer", host=socket.gethostname(), device=str(device))
    observer = recording.recorder("sequential", 1, [place], server, logger)
    conductor = recording.conductor(workshop, server, observer)
    account = account_of(0, place)
    conductor.accounts = lambda: [account]
    recording.begin(conductor, time.monotonic() - STARTED)
    try:
        run_sequential(server, _slowed(task, job), conductor, stop, account)
    except BaseException as error:
        logger.error("training failed", exc_info=True)
        observer.ended("failed", conductor.time_s, reason=f"{type(error).__name__}: {error}")
        raise
    recording.finish(conductor, workshop, server, [account], reason_of(stop))
    return _status(stop)


def _slowed(task: Task, job: Job) -> Task:
    """The task, held up from now on as the job says of worker 0."""
    if not job.inject.active:
        return task
    return SlowedTask(task, Injection.of_one_process(job.inject, job.seed))


def _status(stop: StopFlag) -> int:
    return 128 + stop.signum if stop and stop.signum else 0


def _abort(comm: MPI.Comm, error: BaseException, logger: Logger | None) -> NoReturn:
    """End the whole job from one rank, saying which rank, where and why."""
    where = f"rank {comm.rank} on {socket.gethostname()}"
    if logger:
        logger.error("%s failed", where, exc_info=error)
    if not isinstance(error, UserError):
        traceback.print_exception(error)
    print(f"{where}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    if isinstance(error, WorkersLostError):
        leave(error.exit_status)  # nobody is left to abort, and mpirun would call that a success
    comm.Abort(getattr(error, "exit_status", 1))
    raise SystemExit(1)  # not reached: Abort does not return
