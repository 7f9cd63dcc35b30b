"""``mpi-dcasgd train``: one process of a run, whichever rank it turns out to be."""

from __future__ import annotations

import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from logging import Logger
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

_STARTED = time.monotonic()  # before the imports that make up most of start-up

import torch  # noqa: E402

from mpi_dcasgd.cli.build import Workshop  # noqa: E402
from mpi_dcasgd.cli.recording import Recording  # noqa: E402
from mpi_dcasgd.config.schema import Job  # noqa: E402
from mpi_dcasgd.drivers.agreeing import together  # noqa: E402
from mpi_dcasgd.drivers.conductor import Conductor  # noqa: E402
from mpi_dcasgd.drivers.injection import Injection, SlowedTask  # noqa: E402
from mpi_dcasgd.drivers.leaving import leave, outlives_deaths  # noqa: E402
from mpi_dcasgd.drivers.observer import WorkerTotals  # noqa: E402
from mpi_dcasgd.drivers.sequential import Spent, run_sequential  # noqa: E402
from mpi_dcasgd.drivers.stopping import StopFlag  # noqa: E402
from mpi_dcasgd.drivers.waiting import spin_s  # noqa: E402
from mpi_dcasgd.drivers.world import Launch, check_world, host_ranks, pick_device  # noqa: E402
from mpi_dcasgd.errors import LaunchError, ProtocolError, UserError, WorkersLostError  # noqa: E402
from mpi_dcasgd.learning.task import Task  # noqa: E402
from mpi_dcasgd.record.environment import RankPlace, git_state  # noqa: E402
from mpi_dcasgd.record.logs import rank_logger  # noqa: E402
from mpi_dcasgd.record.run_folder import RunFolder  # noqa: E402
from mpi_dcasgd.rules.algorithms import ALGORITHMS  # noqa: E402
from mpi_dcasgd.server.server import ParameterServer  # noqa: E402

if TYPE_CHECKING:
    from mpi4py import MPI

_CPU = torch.device("cpu")


def train(job: Job, *, run_dir: Path | None, argv: Sequence[str], overwrite: bool = False) -> int:
    """Train as the job says, as this process's rank of the world.

    Args:
        job: The checked job.
        run_dir: The run folder, or None to have one named after the job.
        argv: The command line, for the record.
        overwrite: Replace a finished run that ``run_dir`` holds.

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
    mode = ALGORITHMS[job.algorithm].mode
    if mode == "sequential":
        _refuse_a_world(job.algorithm, launch)
        return _train_alone(job, Recording(job, run_dir, argv, git, overwrite=overwrite), stop)
    import mpi4py

    # Only the main thread calls MPI in an asynchronous run; Horovod has a thread of its own.
    mpi4py.rc.thread_level = "multiple" if mode == "synchronous" else "funneled"
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    rank = _Rank(comm, job, stop)
    try:
        rank.set_up(lambda: Recording(job, run_dir, argv, git, overwrite=overwrite))
    except UserError:
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


def _train_alone(job: Job, recording: Recording, stop: StopFlag) -> int:
    device = pick_device(job.device, 0)
    logger = rank_logger(recording.folder, 0)
    workshop = Workshop.open(job, device)
    server = workshop.server(1, device)
    task = workshop.task(workshop.flat_model(device, server.slots[0].snapshot))
    place = RankPlace(rank=0, role="trainer", host=socket.gethostname(), device=str(device))
    observer = recording.recorder("sequential", 1, [place], server.plan.num_samples, logger)
    conductor = Conductor(server, observer, workshop.evaluator(), job.evaluate_every)
    conductor.begin(time.monotonic() - _STARTED)
    try:
        spent = run_sequential(server, task, conductor, stop)
    except BaseException as error:
        logger.error("training failed", exc_info=True)
        observer.ended("failed", conductor.time_s, reason=f"{type(error).__name__}: {error}")
        raise
    conductor.finish(
        [_totals(0, place, spent)],
        reason="" if server.complete else _reason(stop),
        closing=lambda: recording.write_weights(workshop, server),
    )
    return _status(stop)


class _Rank:
    """One rank of an MPI world on its way through a run.

    Attributes:
        logger: Writes this rank's own log, once there is a run folder.
    """

    def __init__(self, comm: MPI.Comm, job: Job, stop: StopFlag) -> None:
        self.comm = comm
        self.job = job
        self.stop = stop
        self.logger: Logger | None = None
        self.synchronous = ALGORITHMS[job.algorithm].mode == "synchronous"
        self.local_rank, ranks_on_host = host_ranks(comm)
        self.spin_s = spin_s(ranks_on_host)

    def set_up(self, begin_recording: Callable[[], Recording]) -> None:
        """All that can fail by a user's mistake; every rank fails with the same UserError."""
        comm, job = self.comm, self.job
        together(comm, self._check_size)
        self.injection = together(comm, self._make_injection)
        if self.synchronous:
            from mpi_dcasgd.drivers.horovod import start_horovod

            self.hvd = together(comm, lambda: start_horovod(comm))
        self.recording = together(comm, lambda: begin_recording() if comm.rank == 0 else None)
        path = comm.bcast(self.recording.folder.path if self.recording else None)
        self.logger = together(comm, lambda: rank_logger(RunFolder(path), comm.rank))
        self.device = together(comm, lambda: pick_device(job.device, self.local_rank))
        group = comm.size if self.synchronous else 1
        self.workshop = together(comm, lambda: Workshop.open(job, self.device, group))
        # The server's own vectors are on the CPU; its device is where it evaluates.
        place = RankPlace(
            rank=comm.rank,
            role=self._role(),
            host=socket.gethostname(),
            device=str(self.device),
            device_name=torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else "",
        )
        self.places: list[RankPlace] = comm.allgather(place)
        self.logger.info("rank %d of %d on %s, %s", comm.rank, comm.size, place.host, place.device)

    def train_asynchronously(self) -> None:
        """Serve as rank 0, or work for it."""
        if self.comm.rank == 0:
            self._serve()
        else:
            self._work()

    def train_synchronously(self) -> None:
        """One rank of the group whose gradients Horovod averages."""
        from mpi_dcasgd.drivers.horovod import run_synchronous

        comm, workshop = self.comm, self.workshop
        server = workshop.server(1, self.device)
        task = workshop.task(workshop.flat_model(self.device, server.slots[0].snapshot))
        conductor = None
        if self.recording:
            observer = self._recorder("horovod", comm.size, server.plan.num_samples)
            conductor = Conductor(server, observer, workshop.evaluator(), self.job.evaluate_every)
        comm.Barrier()
        if conductor:
            conductor.begin(time.monotonic() - _STARTED)
        spent = run_synchronous(self.hvd, server, self._slowed(task), conductor, self.stop)
        self._check_replicas(server.weights)
        totals = comm.gather(_totals(comm.rank, self.places[comm.rank], spent))
        self.hvd.shutdown()
        if conductor and self.recording:
            self._finish(conductor, server, totals or [])

    def _serve(self) -> None:
        from mpi_dcasgd.drivers.mpi_server import ServerLoop

        comm, workshop = self.comm, self.workshop
        server = workshop.server(comm.size - 1, _CPU)
        assert self.recording is not None  # rank 0 has it
        observer = self._recorder("mpi", comm.size - 1, server.plan.num_samples)
        conductor = Conductor(server, observer, workshop.evaluator(), self.job.evaluate_every)
        loop = ServerLoop(comm, server, conductor, self.stop, self.spin_s)
        comm.Barrier()
        conductor.begin(time.monotonic() - _STARTED)
        try:
            loop.run()
        except BaseException as error:
            observer.ended("failed", conductor.time_s, reason=f"{type(error).__name__}: {error}")
            raise
        loop.close()
        totals = [
            WorkerTotals(
                worker=worker,
                host=self.places[worker + 1].host,
                device=self.places[worker + 1].device,
                updates=times.updates,
                samples=times.samples,
                compute_s=times.compute_ns / 1e9,
                data_s=times.data_ns / 1e9,
                wait_s=times.wait_ns / 1e9,
            )
            for worker, times in enumerate(loop.times)
        ]
        self._finish(conductor, server, totals)

    def _work(self) -> None:
        from mpi_dcasgd.drivers.mpi_worker import Link, run_worker

        workshop = self.workshop
        size = workshop.flat_model(_CPU).layout.size
        link = Link(self.comm, size, self.device, self.spin_s)
        if self.device.type == "cpu":
            flat = workshop.flat_model(self.device, link.reply.vector, link.push.vector)
        else:
            flat = workshop.flat_model(self.device)
        link.expect()
        self.comm.Barrier()
        task = self._slowed(workshop.task(flat))
        run_worker(link, task, background=self.job.tickets_ahead > 0)
        link.close()

    def _make_injection(self) -> Injection | None:
        """What holds this rank's steps up, if the job says so; the server computes none."""
        settings, rank = self.job.inject, self.comm.rank
        if not settings.active:
            return None
        workers = self.comm.size if self.synchronous else self.comm.size - 1
        worker = rank if self.synchronous else max(0, rank - 1)
        return Injection(settings, worker, workers, self.job.seed)

    def _slowed(self, task: Task) -> Task:
        """The task, held up from now on as the job says."""
        if self.injection is None:
            return task
        self.injection.begin()
        return SlowedTask(task, self.injection)

    def _finish(
        self, conductor: Conductor, server: ParameterServer, totals: Sequence[WorkerTotals]
    ) -> None:
        recording = self.recording
        assert recording is not None  # rank 0 has it
        conductor.finish(
            totals,
            reason="" if server.complete else _reason(self.stop),
            closing=lambda: recording.write_weights(self.workshop, server),
        )

    def _recorder(self, driver: str, num_workers: int, num_samples: int) -> Any:
        assert self.recording is not None  # rank 0 has both
        assert self.logger is not None
        return self.recording.recorder(
            driver, num_workers, self.places, num_samples, self.logger, _mpi_library()
        )

    def _role(self) -> str:
        if self.synchronous:
            return "trainer"
        return "server" if self.comm.rank == 0 else "worker"

    def _check_size(self) -> None:
        check_world(self.comm.size, library=_mpi_library())
        if not self.synchronous and self.comm.size < 2:
            raise LaunchError(
                f"algorithm {self.job.algorithm} got 1 rank; it needs a server and at least one "
                "worker, so start 2 or more: mpirun -n 5 python -m mpi_dcasgd train JOB, or "
                "mpi-dcasgd run -n 5 JOB"
            )

    def _check_replicas(self, weights: torch.Tensor) -> None:
        """All ranks must have come to the same weights, or the run is not what it says it is."""
        from mpi_dcasgd.drivers.conductor import weights_sha256

        layout = self.workshop.flat_model(_CPU).layout
        names = self.comm.allgather(weights_sha256(weights, layout))
        if len(set(names)) > 1:
            apart = [rank for rank, name in enumerate(names) if name != names[0]]
            raise ProtocolError(
                f"the weights of ranks {apart} differ from rank 0's at the end of a synchronous "
                "run: the allreduce does not give every rank the same bits"
            )


def _mpi_library() -> str:
    from mpi4py import MPI

    return MPI.Get_library_version()


def _refuse_a_world(algorithm: str, launch: Launch) -> None:
    if launch.size > 1:
        raise LaunchError(
            f"algorithm {algorithm} is one process, but {launch.launcher} started {launch.size}; "
            "start it without a launcher, or choose another algorithm"
        )


def _totals(worker: int, place: RankPlace, spent: Spent) -> WorkerTotals:
    return WorkerTotals(
        worker=worker,
        host=place.host,
        device=place.device,
        updates=spent.updates,
        samples=spent.samples,
        compute_s=spent.compute_s,
        data_s=spent.data_s,
        wait_s=spent.wait_s,
        comm_s=spent.comm_s,
    )


def _reason(stop: StopFlag) -> str:
    return f"stopped by signal {stop.signum}" if stop else ""


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
