"""Work of each rank of a world once all are set up: serve, work, or train in a group."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.drivers.backoff import wait_until
from mpi_dcasgd.drivers.buckets import BUCKET_BYTES, split_in_buckets
from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.drivers.evaluation_watch import watch_evaluations
from mpi_dcasgd.drivers.farewell import await_leave, take_leave
from mpi_dcasgd.drivers.lifelines import Lifelines
from mpi_dcasgd.drivers.signals import outlives_deaths
from mpi_dcasgd.drivers.simulation.slowed_learner import SlowedLearner
from mpi_dcasgd.drivers.startup import together
from mpi_dcasgd.drivers.synchronous import run_synchronous
from mpi_dcasgd.drivers.topology import SERVER
from mpi_dcasgd.learning.learner import Learner
from mpi_dcasgd.learning.trial import watch_weights
from mpi_dcasgd.record.environment import RankPlace
from mpi_dcasgd.record.recorder import Recorder
from mpi_dcasgd.runs.group_faults import check_replicas, naming_the_dead, watch_group
from mpi_dcasgd.runs.rank import Rank, mpi_library
from mpi_dcasgd.runs.respawn import recruiting
from mpi_dcasgd.runs.run_end import reason_of
from mpi_dcasgd.runs.servers import (
    agree_on_kernel,
    follow,
    make_crew,
    watch_over_server,
)
from mpi_dcasgd.server.server import ParameterServer
from mpi_dcasgd.server.wire import Wire

if TYPE_CHECKING:
    from mpi_dcasgd.drivers.divided_link import DividedLink
    from mpi_dcasgd.drivers.mpi_worker import Link
    from mpi_dcasgd.drivers.notes import ServerWatch

_CPU = torch.device("cpu")


def train_in_role(rank: Rank) -> None:
    """Train from start to end; rank 0 is the last to be done, and all wait for it."""
    if rank.synchronous:
        _average(rank)
        rank.in_step = True
    elif rank.comm.rank == SERVER:
        _serve(rank)
    elif rank.comm.rank in rank.world.server_ranks:
        together(rank.meeting, lambda: None)
        follow(rank)
    else:
        _work(rank)


def _average(rank: Rank) -> None:
    """One rank of the group whose gradients are averaged."""
    comm, workshop = rank.comm, rank.workshop
    server = workshop.server(1, rank.device)
    # What is slowed on purpose sends nothing before its time.
    whole = rank.job.compute.accumulate == 1
    overlap = whole and rank.job.sync.overlap == "auto" and not rank.job.inject.active
    bucket_bytes = BUCKET_BYTES if overlap and rank.reducer.in_background else None
    streams = bucket_bytes and len(split_in_buckets(server.layout, bucket_bytes)) > 1
    flat = workshop.flat_model(rank.device, server.slots[0].snapshot)
    if rank.recording:
        together(rank.meeting, workshop.try_metrics)
    else:
        together(rank.meeting, lambda: None)
    learner = together(rank.meeting, lambda: workshop.learner(flat, capture=not streams))
    rank.in_step = False
    conductor = None
    if rank.recording:
        observer = _recorder(rank, rank.reducer.name, comm.size, server)
        conductor = rank.recording.conductor(workshop, server, observer)
    rank.meeting.barrier()
    if conductor and rank.recording:
        rank.recording.begin(conductor, time.monotonic() - rank.started)
    records = (rank.recording, conductor) if rank.recording and conductor else None
    assert rank.logger is not None  # it was opened by set_up
    watch = watch_group(comm, rank.job, rank.places, rank.stop, rank.logger, records)
    naming = naming_the_dead(comm, rank.places, watch, conductor)
    with _at_work(rank, conductor), naming:
        account = run_synchronous(
            rank.reducer,
            server,
            _slowed(rank, learner),
            conductor,
            rank.stop,
            accumulate=rank.job.sync.accumulate,
            compression=rank.job.sync.compression,
            bucket_bytes=bucket_bytes,
            account=account_of(comm.rank, rank.places[comm.rank]),
            watch=watch,
        )
        if watch:
            watch.ends(works=comm.rank == 0)
        check_replicas(comm, server.weights, rank.layout)
    accounts = comm.gather(account)
    rank.resources.close()
    if conductor and rank.recording:
        _finish(rank, conductor, server, accounts or [])
    wait_until(rank.comm.Ibarrier().Test, rank.spin_s)
    if watch:
        watch.close()


def _serve(rank: Rank) -> None:
    from mpi_dcasgd.drivers.mpi_server import ServerLoop

    comm, workshop = rank.comm, rank.workshop
    together(rank.meeting, workshop.try_metrics)
    rank.in_step = False
    crew = make_crew(rank)
    server = workshop.server(rank.world.num_workers, _CPU, cuts=rank.cuts, crew=crew)
    if crew:
        rank.resources.callback(crew.close)
        agree_on_kernel(rank.meeting, server.chain.kernel)
    assert rank.recording is not None  # rank 0 has it
    observer = _recorder(rank, "mpi", rank.world.num_workers, server)
    conductor = rank.recording.conductor(workshop, server, observer)
    ranks = enumerate(rank.world.worker_ranks)
    accounts = [account_of(worker, rank.places[its]) for worker, its in ranks]
    faults = rank.job.faults
    shared = rank.sharing.segments
    loop = ServerLoop(
        *(comm, server, conductor, rank.stop, rank.spin_s, accounts, faults, shared),
        crew=crew,
        chunked=rank.chunked,
    )
    rank.resources.callback(loop.close)
    if isinstance(rank.lifeline, Lifelines):
        loop.desk.hold(rank.lifeline)
    observer.follow(accounts, lambda: loop.busy_s)
    if faults.respawn:
        loop.attendance.newcomers = recruiting(rank, loop.roll.name, conductor)
    watch_evaluations(conductor, rank.job.faults, rank.meeting.name(SERVER), loop.desk.look)
    conductor.accounts = lambda: accounts
    rank.meeting.barrier()
    rank.recording.begin(conductor, time.monotonic() - rank.started)
    with _at_work(rank, conductor):
        loop.run()
    if not crew:
        rank.resources.close()
    _finish(rank, conductor, server, accounts)
    if loop.attendance.newcomers:
        loop.attendance.newcomers.dismiss()
    if crew:  # the others have handed in the final weights by now
        crew.end()
        rank.resources.close()
    peers = [*loop.present(), *(crew.peers if crew else ())]
    rank.in_step = take_leave(peers, ", ".join(loop.roll.stuck))


def _work(rank: Rank) -> None:
    from mpi_dcasgd.drivers.mpi_worker import run_worker

    watch = watch_over_server(rank)
    link = _link(rank, watch)
    rank.resources.callback(link.close)
    learner = together(rank.meeting, lambda: _bound_learner(rank, link))
    if rank.world.num_servers > 1:
        agree_on_kernel(rank.meeting, "")
    rank.in_step = False
    link.expect()
    rank.meeting.barrier()
    rank.expendable = outlives_deaths()
    run_worker(link, _slowed(rank, learner), background=rank.job.tickets_ahead > 0)
    rank.in_step = not await_leave(rank.comm, rank.spin_s, watch)


def _link(rank: Rank, watch: ServerWatch) -> Link | DividedLink:
    from mpi_dcasgd.drivers.divided_link import DividedLink
    from mpi_dcasgd.drivers.mpi_worker import Link

    comm, device, spin_s = rank.comm, rank.device, rank.spin_s
    if rank.world.num_servers > 1:
        return DividedLink(comm, rank.world, rank.shards, device, spin_s, watch)
    wire = Wire.of(rank.job.wire, rank.layout.num_params, rank.layout.num_stats)
    cuts = rank.cuts if rank.world.worker_of(comm.rank) in rank.chunked else ()
    return Link(comm, wire, device, spin_s, watch, rank.sharing.own, cuts)


def _bound_learner(rank: Rank, link: Link | DividedLink) -> Learner:
    """Return the learner, whose vectors are the link's where that can be."""
    workshop = rank.workshop
    if not link.staged:
        flat = workshop.flat_model(rank.device, link.reply.vector, link.push.vector)
        written = watch_weights(flat) if link.shares else None
        learner = workshop.learner(flat)
        if written is None or not written():
            return learner
        # What a model does to its own weights (an embedding's max_norm) must not reach the
        # server's snapshot, which is what the worker was sent.
        link.staged = True
        if rank.logger:
            rank.logger.info("the model changes its weights itself, so it has a copy of them")
    return workshop.learner(workshop.flat_model(rank.device))


def _at_work(rank: Rank, conductor: Conductor | None) -> AbstractContextManager[None]:
    return rank.recording.at_work(conductor) if rank.recording and conductor else nullcontext()


def _slowed(rank: Rank, learner: Learner) -> Learner:
    """The learner, held up from now on as the job says."""
    if rank.injection is None:
        return learner
    rank.injection.begin()
    return SlowedLearner(learner, rank.injection)


def _finish(
    rank: Rank, conductor: Conductor, server: ParameterServer, accounts: Sequence[Account]
) -> None:
    assert rank.recording is not None  # rank 0 has it
    reason = reason_of(rank.stop)
    rank.recording.finish(conductor, rank.workshop, server, accounts, reason)


def _recorder(rank: Rank, driver: str, num_workers: int, server: ParameterServer) -> Recorder:
    assert rank.recording is not None  # rank 0 has it
    return rank.recording.recorder(
        driver,
        num_workers,
        rank.places,
        server,
        mpi_library(),
        workshop=rank.workshop,
    )


def account_of(worker: int, place: RankPlace) -> Account:
    """Open the account of a worker on a rank."""
    return Account(worker=worker, host=place.host, device=place.device)
