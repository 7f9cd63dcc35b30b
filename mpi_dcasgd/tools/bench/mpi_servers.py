"""One rank of ``bench mpi --servers``: pushes and pulls a second of several servers as one.

The bare messages and the update that it is held against are those of one server with the longest
stretch: what they would come to if no server had anything to do with another.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from mpi4py import MPI

from mpi_dcasgd.drivers.backoff import wait_until
from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.drivers.crew import MpiCrew
from mpi_dcasgd.drivers.divided_link import DividedLink
from mpi_dcasgd.drivers.fault_settings import FaultSettings
from mpi_dcasgd.drivers.mpi_follower import FollowerLoop
from mpi_dcasgd.drivers.mpi_server import ServerLoop
from mpi_dcasgd.drivers.mpi_worker import run_worker
from mpi_dcasgd.drivers.notes import ServerWatch
from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.drivers.topology import SERVER, Topology
from mpi_dcasgd.drivers.transport import Transport
from mpi_dcasgd.drivers.transport.sharing import share_memory
from mpi_dcasgd.learning.layout import FlatLayout
from mpi_dcasgd.learning.learner import Learner
from mpi_dcasgd.pages import zeros
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.server.follower import Follower
from mpi_dcasgd.server.header import HEADER_BYTES
from mpi_dcasgd.server.precision import FLOAT_BYTES, WireSettings
from mpi_dcasgd.server.server import ParameterServer
from mpi_dcasgd.server.shard import shards_of, way_of
from mpi_dcasgd.server.wire import Wire
from mpi_dcasgd.tools.bench import raw_messages

_CPU = torch.device("cpu")

MakeServer = Callable[[MpiCrew], ParameterServer]


def measure(
    comm: MPI.Comm,
    world: Topology,
    layout: FlatLayout,
    rule: Rule,
    updates: int,
    pause_s: float,
    transport: Transport,
    wire: WireSettings,
    make: MakeServer,
    update_alone: Callable[[ParameterServer], float],
    conductor: Conductor,
    learner_of: Callable[[DividedLink], Learner],
) -> tuple[float, float, float]:
    """Return seconds of all bare messages, of an update alone and of all pushes, on the leader.

    Args:
        comm: Of the ranks of this world, all of which call.
        world: Its topology, with several servers.
        layout: Of the whole vector.
        rule: Of the servers.
        updates: How many pushes.
        pause_s: Seconds that a wait polls before it sleeps.
        transport: How vectors travel.
        wire: What they are rounded to.
        make: Makes the leader's server.
        update_alone: Measures its update.
        conductor: Is told of pushes.
        learner_of: Makes the learner of a worker.

    Returns:
        Zeros on the other ranks.
    """
    shards = shards_of(layout, world.num_servers)
    form, rounds = Wire.of(wire, shards[-1].layout.size), -(-updates // world.num_workers)
    sent = 0 if transport == "shared" else (form.push_bytes - HEADER_BYTES) // FLOAT_BYTES
    if comm.rank == SERVER:
        raw_s = raw_messages.serve(comm, world, sent, rounds)
        sharing = share_memory(comm, transport, layout.size, world)
        crew = MpiCrew(comm, world, shards, spin_s=pause_s, shared=sharing.segments)
        server, shared = make(crew), sharing.parts(0, shards[0].end)
        loop = ServerLoop(comm, server, conductor, StopFlag(), pause_s, shared=shared, crew=crew)
        update_s = update_alone(server)
        _begin(comm)
        started = time.perf_counter()
        loop.run()
        spent_s = time.perf_counter() - started
        crew.end()
        loop.close()
        crew.close()
        return raw_s, update_s, spent_s
    if world.worker_of(comm.rank) is None:
        comm.Barrier()  # of the bare messages
        sharing = share_memory(comm, transport, layout.size, world)
        shard, none = shards[comm.rank], torch.empty(0)
        weights = zeros(shard.layout.size).normal_()
        way = way_of(layout, "auto")
        follower = Follower(weights, shard, rule, world.num_workers, none, way, wire)
        watch = ServerWatch(comm, FaultSettings(), "")
        shared = sharing.parts(shard.begin, shard.end)
        following = FollowerLoop(comm, world, follower, watch, pause_s, shared)
        _begin(comm)
        following.run()
        following.close()
    else:
        raw_messages.push_and_pull(comm, sent, rounds)
        own = share_memory(comm, transport, layout.size, world).own
        whole = Wire.of(wire, layout.size)
        link = DividedLink(comm, world, shards, whole, _CPU, pause_s, shared=own)
        link.grad.fill_(1e-3)
        link.expect()
        _begin(comm)
        run_worker(link, learner_of(link), background=False)
        link.close()
    return 0.0, 0.0, 0.0


def _begin(comm: MPI.Comm) -> None:
    """Begin together, once the leader has measured its update alone."""
    wait_until(comm.Ibarrier().Test)
    comm.Barrier()
