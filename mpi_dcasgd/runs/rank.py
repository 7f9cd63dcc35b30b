"""One rank of an MPI world: its start-up, step by step with all others, and its end."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from logging import Logger
from typing import TYPE_CHECKING

import torch

from mpi_dcasgd.config.load import job_as_yaml
from mpi_dcasgd.config.needs import available_bytes
from mpi_dcasgd.config.own_code import own_names
from mpi_dcasgd.config.plan import check_memory, divide, plan_job, world_of
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.fault_settings import check_respawn
from mpi_dcasgd.drivers.handshake import (
    code_facts,
    job_facts,
    layout_facts,
    shake_hands,
)
from mpi_dcasgd.drivers.lifelines import Lifelines, hold_lifelines
from mpi_dcasgd.drivers.meeting import Meeting
from mpi_dcasgd.drivers.reducers import Reducer, make_reducer
from mpi_dcasgd.drivers.signals import StopFlag, outlives_deaths
from mpi_dcasgd.drivers.simulation.injection import Injection
from mpi_dcasgd.drivers.startup import agree_on_code, check_alike, share_files, together
from mpi_dcasgd.drivers.transport.sharing import Sharing, share_memory
from mpi_dcasgd.drivers.world import Launch, check_world, host_ranks, host_spin_s, pick_device
from mpi_dcasgd.learning.loaders.pool import Loaders
from mpi_dcasgd.record.environment import RankPlace
from mpi_dcasgd.record.logs import close_logger, rank_logger
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.build import Workshop
from mpi_dcasgd.runs.data_check import facts_of_data
from mpi_dcasgd.runs.recording import Recording
from mpi_dcasgd.runs.resume import Standing

if TYPE_CHECKING:
    from mpi4py import MPI

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
        self.resources = ExitStack()
        self.meeting = Meeting(comm, job.faults.setup_patience)
        self.synchronous = job.mode == "synchronous"
        self.meeting.doing = "looking at the hosts"
        self.local_rank, _ = host_ranks(self.meeting)
        launch = Launch.of()
        if launch.size > comm.size:  # others, who are not of this run, have their GPUs
            self.local_rank = launch.local_rank
        self.spin_s = host_spin_s(self.meeting)

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
            self.reducer = self._make_reducer()
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
        start = self.workshop.start
        begun = {} if start is None else {"weights to start from": start.sha256}
        data = together(meeting, self._data_facts)
        shake_hands(meeting, {**data, **layout_facts(flat.layout), **begun})
        check_alike(meeting, "parameters that are not trained", flat.fixed_sha256())
        meeting.doing = "sharing memory"
        self.sharing = Sharing()
        if not self.synchronous:
            servers = self.world.num_servers
            self.shards = together(meeting, lambda: divide(job, flat.layout, servers))
            self.sharing = share_memory(meeting, job.transport, flat.layout.size, self.world)
        self.cuts = job.cuts(flat.layout.num_params)
        self.chunked = self.sharing.chunked(job.chunk_mb) if self.cuts else frozenset()
        if not self.chunked and not job.faults.respawn:  # processes that come later have chunks
            self.cuts = ()
        self.lifeline: Lifelines | socket.socket | None = None
        if not self.synchronous:
            own = self.world.worker_of(comm.rank)
            self.lifeline = hold_lifelines(meeting, self.world, own)
        if self.lifeline:
            self.resources.callback(self.lifeline.close)
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
        lines = [*self.sharing.lines(), *self._wire_lines()] if self.recording else []
        for line in lines:
            self.logger.info(line)

    def _wire_lines(self) -> list[str]:
        wire = self.job.wire
        if self.synchronous or not wire.rounds:
            return []
        return [
            f"numbers are rounded on their way: gradients to {wire.push}, weights to {wire.reply}",
            *self.sharing.idle_wire(),
        ]

    def close(self) -> None:
        """Give back MPI's requests, the reducer, threads and files, whatever has happened."""
        self.resources.close()
        if self.recording is not None:
            self.recording.close()
        elif self.logger is not None:
            close_logger(self.logger)

    def _make_reducer(self) -> Reducer:
        sync = self.job.sync
        reducer = make_reducer(sync.backend, sync.compression, self.meeting, self.device)
        self.resources.callback(reducer.close)
        return reducer

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

    def _data_facts(self) -> dict[str, str]:
        return facts_of_data(self.job, self.workshop)

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

    def _check_size(self) -> None:
        from mpi4py import MPI

        check_world(MPI.COMM_WORLD.size, library=mpi_library())
        self.world = world_of(self.job, self.comm.size)
        check_respawn(self.job.faults, self.job.mode, fault_tolerant=outlives_deaths())


def mpi_library() -> str:
    """Return the name and version of the MPI library."""
    from mpi4py import MPI

    return MPI.Get_library_version()
