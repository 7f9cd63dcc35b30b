"""One rank of an MPI world: from start-up, through training, to its end."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from logging import Logger
from typing import TYPE_CHECKING

import torch

from mpi_dcasgd.config.load import job_as_yaml
from mpi_dcasgd.config.own_code import own_names
from mpi_dcasgd.config.plan import available_bytes, check_memory, divide, plan_job, world_of
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.drivers.backoff import wait_until
from mpi_dcasgd.drivers.buckets import BUCKET_BYTES, split_in_buckets
from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.drivers.evaluation_watch import watch_evaluations
from mpi_dcasgd.drivers.farewell import await_leave, take_leave
from mpi_dcasgd.drivers.fault_settings import check_respawn
from mpi_dcasgd.drivers.handshake import (
    code_facts,
    data_facts,
    job_facts,
    layout_facts,
    shake_hands,
)
from mpi_dcasgd.drivers.meeting import Meeting
from mpi_dcasgd.drivers.reducers import Reducer, make_reducer
from mpi_dcasgd.drivers.signals import StopFlag, outlives_deaths
from mpi_dcasgd.drivers.simulation.injection import Injection
from mpi_dcasgd.drivers.simulation.slowed_learner import SlowedLearner
from mpi_dcasgd.drivers.startup import agree_on_code, check_alike, share_files, together
from mpi_dcasgd.drivers.synchronous import run_synchronous
from mpi_dcasgd.drivers.topology import SERVER
from mpi_dcasgd.drivers.transport.chunks import cuts_of
from mpi_dcasgd.drivers.transport.sharing import Sharing, share_memory
from mpi_dcasgd.drivers.world import Launch, check_world, host_ranks, host_spin_s, pick_device
from mpi_dcasgd.learning.learner import Learner
from mpi_dcasgd.learning.loaders.pool import Loaders
from mpi_dcasgd.learning.trial import watch_weights
from mpi_dcasgd.record.environment import RankPlace
from mpi_dcasgd.record.logs import close_logger, rank_logger
from mpi_dcasgd.record.recorder import Recorder
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.build import Workshop
from mpi_dcasgd.runs.group_faults import check_replicas, naming_the_dead, watch_group
from mpi_dcasgd.runs.recording import Recording, reason_of
from mpi_dcasgd.runs.respawn import recruiting
from mpi_dcasgd.runs.resume import Standing
from mpi_dcasgd.runs.servers import (
    agree_on_kernel,
    follow,
    make_crew,
    watch_over_server,
)
from mpi_dcasgd.server.server import ParameterServer

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpi_dcasgd.drivers.divided_link import DividedLink
    from mpi_dcasgd.drivers.mpi_worker import Link
    from mpi_dcasgd.drivers.notes import ServerWatch

_CPU = torch.device("cpu")


class Rank:
    """One rank of an MPI world on its way through a run.

    Args:
        comm: The world.
        job: The checked job.
        stop: Set when the run is to end early.
        started: When start-up began, in ``time.monotonic``'s seconds.
        loaders: Load this rank's samples.

    Attributes:
        logger: Writes this rank's own log, once there is a run folder.
        recording: On rank 0, likewise.
        folder: The run folder, on every rank, once there is one.
        expendable: Whether the run goes on without this rank.
        in_step: Whether all ranks are at the same point: an error that one has all have.
    """

    def __init__(
        self, comm: MPI.Comm, job: Job, stop: StopFlag, started: float, loaders: Loaders
    ) -> None:
        self.loaders = loaders
        self.started = started
        self.comm = comm
        self.job = job
        self.stop = stop
        self.logger: Logger | None = None
        self.recording: Recording | None = None
        self.folder: RunFolder | None = None
        self.in_step = True
        self.expendable = False
        self._resources = ExitStack()
        self.meeting = Meeting(comm, job.faults.setup_patience)
        self.synchronous = job.mode == "synchronous"
        self.local_rank, _ = host_ranks(comm)
        launch = Launch.of()
        if launch.size > comm.size:  # others, who are not of this run, have their GPUs
            self.local_rank = launch.local_rank
        self.spin_s = host_spin_s(comm)

    def set_up(self, begin_recording: Callable[[], Recording]) -> None:
        """Set this rank up; a user's mistake raises the same UserError on every rank."""
        comm, job, meeting = self.comm, self.job, self.meeting
        meeting.doing = "comparing the jobs"
        together(meeting, self._check_size)
        shake_hands(meeting, {**code_facts(), **job_facts(job_as_yaml(job))})
        agree_on_code(meeting, own_names(job))
        self.injection = together(meeting, self._make_injection)
        meeting.doing = "looking for a device"
        self.device = together(meeting, lambda: pick_device(job.device, self.local_rank))
        if self.synchronous:
            self.reducer = together(meeting, self._make_reducer)
        meeting.doing = "listing the data's files"
        share_files(meeting, job.data)
        together(meeting, self._check_memory)
        meeting.doing = "opening the run folder"
        self.recording = together(meeting, lambda: begin_recording() if comm.rank == 0 else None)
        group = comm.size * job.sync.accumulate if self.synchronous else 1
        standing = together(meeting, lambda: self._standing(group))
        path = meeting.bcast(self.recording.folder.path if self.recording else None)
        job = self.job = meeting.bcast(self.recording.job if self.recording else None)
        # In an asynchronous run rank 0 alone has a server; in a synchronous one every rank has.
        if self.synchronous:
            standing = meeting.bcast_large(standing)
        folder = self.folder = RunFolder(path)
        self.logger = together(meeting, lambda: self._open_log(folder))
        meeting.doing = "reading the data"
        self.workshop = together(
            meeting, lambda: Workshop.open(job, self.device, group, standing, self.loaders)
        )
        together(meeting, self._check_data)
        meeting.doing = "making the model"
        flat = together(meeting, lambda: self.workshop.flat_model(_CPU))
        self.layout = flat.layout
        shake_hands(meeting, {**data_facts(self.workshop.subject), **layout_facts(flat.layout)})
        check_alike(meeting, "parameters that are not trained", flat.fixed_sha256())
        meeting.doing = "sharing memory"
        self.sharing = Sharing()
        if not self.synchronous:
            servers = self.world.num_servers
            self.shards = together(meeting, lambda: divide(job, flat.layout, servers))
            self.sharing = share_memory(meeting, job.transport, flat.layout.size, self.world)
        self.chunked = self.sharing.chunked(job.chunk_mb)
        self.cuts = cuts_of(job.chunk_mb, flat.layout.num_params)
        if self.world.num_servers > 1:
            self.chunked = frozenset()
        if not self.chunked and not job.faults.respawn:  # processes that come later have chunks
            self.cuts = ()
        meeting.doing = "trying out the model"
        # The server's own vectors are on the CPU; its device is where it evaluates.
        worker = self.world.worker_of(comm.rank)
        place = RankPlace(
            rank=comm.rank,
            role=self.world.role(comm.rank),
            host=socket.gethostname(),
            device=str(self.device),
            device_name=torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else "",
            transport=self.sharing.transport(worker),
            chunks=len(self.cuts) + 1 if self.cuts and worker in self.chunked else 0,
        )
        self.places: list[RankPlace] = meeting.allgather(place)
        self.logger.info("rank %d of %d on %s, %s", comm.rank, comm.size, place.host, place.device)
        for line in self.sharing.lines() if self.recording else ():
            self.logger.info(line)

    def train(self) -> None:
        """Train from start to end; rank 0 is the last to be done, and all wait for it."""
        if self.synchronous:
            self._train_synchronously()
            self.in_step = True
        elif self.comm.rank == SERVER:
            self._serve()
        elif self.comm.rank in self.world.server_ranks:
            together(self.meeting, lambda: None)
            follow(self)
        else:
            self._work()

    def closing(self, release: Callable[[], None]) -> None:
        """Have something given back when this rank is closed."""
        self._resources.callback(release)

    def close(self) -> None:
        """Give back MPI's requests, the reducer, threads and files, whatever has happened."""
        self._resources.close()
        if self.recording is not None:
            self.recording.close()
        elif self.logger is not None:
            close_logger(self.logger)

    def _train_synchronously(self) -> None:
        """One rank of the group whose gradients are averaged."""
        comm, workshop = self.comm, self.workshop
        server = workshop.server(1, self.device)
        # What is slowed on purpose sends nothing before its time.
        whole = self.job.compute.accumulate == 1
        overlap = whole and self.job.sync.overlap == "auto" and not self.job.inject.active
        bucket_bytes = BUCKET_BYTES if overlap and self.reducer.in_background else None
        streams = bucket_bytes and len(split_in_buckets(server.layout, bucket_bytes)) > 1
        flat = workshop.flat_model(self.device, server.slots[0].snapshot)
        if self.recording:
            together(self.meeting, workshop.try_metrics)
        else:
            together(self.meeting, lambda: None)
        learner = together(self.meeting, lambda: workshop.learner(flat, capture=not streams))
        self.in_step = False
        conductor = None
        if self.recording:
            observer = self._recorder(self.reducer.name, comm.size, server)
            conductor = self.recording.conductor(workshop, server, observer)
        self.meeting.barrier()
        if conductor and self.recording:
            self.recording.begin(conductor, time.monotonic() - self.started)
        records = (self.recording, conductor) if self.recording and conductor else None
        assert self.logger is not None  # it was opened by set_up
        watch = watch_group(comm, self.job, self.places, self.stop, self.logger, records)
        naming = naming_the_dead(comm, self.places, watch, conductor)
        with self._at_work(conductor), naming:
            account = run_synchronous(
                self.reducer,
                server,
                self._slowed(learner),
                conductor,
                self.stop,
                accumulate=self.job.sync.accumulate,
                compression=self.job.sync.compression,
                bucket_bytes=bucket_bytes,
                account=account_of(comm.rank, self.places[comm.rank]),
                watch=watch,
            )
            if watch:
                watch.ends(works=comm.rank == 0)
            check_replicas(comm, server.weights, self.layout)
        accounts = comm.gather(account)
        self._resources.close()
        if conductor and self.recording:
            self._finish(conductor, server, accounts or [])
        wait_until(self.comm.Ibarrier().Test, self.spin_s)
        if watch:
            watch.close()

    def _serve(self) -> None:
        from mpi_dcasgd.drivers.mpi_server import ServerLoop

        comm, workshop = self.comm, self.workshop
        together(self.meeting, workshop.try_metrics)
        self.in_step = False
        crew = make_crew(self)
        server = workshop.server(self.world.num_workers, _CPU, cuts=self.cuts, crew=crew)
        if crew:
            self._resources.callback(crew.close)
            agree_on_kernel(self.meeting, server.chain.kernel)
        assert self.recording is not None  # rank 0 has it
        observer = self._recorder("mpi", self.world.num_workers, server)
        conductor = self.recording.conductor(workshop, server, observer)
        ranks = enumerate(self.world.worker_ranks)
        accounts = [account_of(worker, self.places[rank]) for worker, rank in ranks]
        faults = self.job.faults
        shared = self.sharing.segments
        loop = ServerLoop(
            *(comm, server, conductor, self.stop, self.spin_s, accounts, faults, shared),
            chunked=self.chunked,
            crew=crew,
        )
        self._resources.callback(loop.close)
        observer.follow(accounts, lambda: loop.busy_s)
        if faults.respawn:
            loop.newcomers = recruiting(self, loop.roll.name, conductor)
        watch_evaluations(conductor, self.job.faults, self.meeting.name(SERVER), loop.desk.look)
        conductor.accounts = lambda: accounts
        self.meeting.barrier()
        self.recording.begin(conductor, time.monotonic() - self.started)
        with self._at_work(conductor):
            loop.run()
        if not crew:
            self._resources.close()
        self._finish(conductor, server, accounts)
        if loop.newcomers:
            loop.newcomers.dismiss()
        if crew:  # the others have handed in the final weights by now
            crew.end()
            self._resources.close()
        peers = [*loop.present(), *(crew.peers if crew else ())]
        self.in_step = take_leave(peers, ", ".join(loop.roll.stuck))

    def _work(self) -> None:
        from mpi_dcasgd.drivers.mpi_worker import run_worker

        watch = watch_over_server(self)
        link = self._link(watch)
        self._resources.callback(link.close)
        learner = together(self.meeting, lambda: self._bound_learner(link))
        if self.world.num_servers > 1:
            agree_on_kernel(self.meeting, "")
        self.in_step = False
        link.expect()
        self.meeting.barrier()
        self.expendable = outlives_deaths()
        run_worker(link, self._slowed(learner), background=self.job.tickets_ahead > 0)
        self.in_step = not await_leave(self.comm, self.spin_s, watch)

    def _link(self, watch: ServerWatch) -> Link | DividedLink:
        from mpi_dcasgd.drivers.divided_link import DividedLink
        from mpi_dcasgd.drivers.mpi_worker import Link

        comm, device, spin_s = self.comm, self.device, self.spin_s
        if self.world.num_servers > 1:
            return DividedLink(comm, self.world, self.shards, device, spin_s, watch)
        cuts = self.cuts if self.world.worker_of(comm.rank) in self.chunked else ()
        return Link(comm, self.layout.size, device, spin_s, watch, self.sharing.own, cuts)

    def _bound_learner(self, link: Link | DividedLink) -> Learner:
        """Return the learner, whose vectors are the link's where that can be."""
        workshop = self.workshop
        if not link.staged:
            flat = workshop.flat_model(self.device, link.reply.vector, link.push.vector)
            written = watch_weights(flat) if link.shares else None
            learner = workshop.learner(flat)
            if written is None or not written():
                return learner
            # What a model does to its own weights (an embedding's max_norm) must not reach the
            # server's snapshot, which is what the worker was sent.
            link.staged = True
            if self.logger:
                self.logger.info("the model changes its weights itself, so it has a copy of them")
        return workshop.learner(workshop.flat_model(self.device))

    def _make_reducer(self) -> Reducer:
        sync = self.job.sync
        reducer = make_reducer(sync.backend, sync.compression, self.comm, self.device)
        self._resources.callback(reducer.close)
        return reducer

    def _at_work(self, conductor: Conductor | None) -> AbstractContextManager[None]:
        return self.recording.at_work(conductor) if self.recording and conductor else nullcontext()

    def _open_log(self, folder: RunFolder) -> Logger:
        return self.recording.logger if self.recording else rank_logger(folder, self.comm.rank)

    def _standing(self, group: int) -> Standing:
        return Standing.of(self.recording.checkpoint if self.recording else None, group)

    def _check_memory(self) -> None:
        """Rank 0 needs the most, and is the one whose need grows with the world."""
        if self.comm.rank == 0:
            gpu = self.device.type == "cuda"
            plan = plan_job(self.job, self.comm.size, gpu=gpu)
            check_memory(plan, available_bytes(), self.job.name)

    def _check_data(self) -> None:
        if self.recording:
            self.recording.check_data(self.workshop)

    def _make_injection(self) -> Injection | None:
        """Return the delays that the job injects into this rank's steps, if any."""
        settings = self.job.inject
        if not settings.active:
            return None
        # The server makes one, too: it would be the only rank that does not see a wrong setting.
        worker = self.world.worker_of(self.comm.rank) or 0
        return Injection(settings, worker, self.world.num_workers, self.job.seed)

    def _slowed(self, learner: Learner) -> Learner:
        """The learner, held up from now on as the job says."""
        if self.injection is None:
            return learner
        self.injection.begin()
        return SlowedLearner(learner, self.injection)

    def _finish(
        self, conductor: Conductor, server: ParameterServer, accounts: Sequence[Account]
    ) -> None:
        assert self.recording is not None  # rank 0 has it
        reason = reason_of(self.stop)
        self.recording.finish(conductor, self.workshop, server, accounts, reason)

    def _recorder(self, driver: str, num_workers: int, server: ParameterServer) -> Recorder:
        assert self.recording is not None  # rank 0 has it
        return self.recording.recorder(
            driver,
            num_workers,
            self.places,
            server,
            _mpi_library(),
            workshop=self.workshop,
        )

    def _check_size(self) -> None:
        from mpi4py import MPI

        check_world(MPI.COMM_WORLD.size, library=_mpi_library())
        self.world = world_of(self.job, self.comm.size)
        check_respawn(self.job.faults, self.job.mode, fault_tolerant=outlives_deaths())


def account_of(worker: int, place: RankPlace) -> Account:
    """Open the account of a worker on a rank."""
    return Account(worker=worker, host=place.host, device=place.device)


def _mpi_library() -> str:
    from mpi4py import MPI

    return MPI.Get_library_version()
