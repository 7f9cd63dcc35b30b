"""Several servers of one run: what the leader and its followers do beside a single server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpi_dcasgd.drivers.farewell import await_leave
from mpi_dcasgd.drivers.meeting import Meeting
from mpi_dcasgd.errors import LaunchError

if TYPE_CHECKING:
    from mpi_dcasgd.drivers.crew import MpiCrew
    from mpi_dcasgd.drivers.notes import ServerWatch
    from mpi_dcasgd.runs.rank import Rank


def make_crew(rank: Rank) -> MpiCrew | None:
    """Return the followers of this rank, which leads; None if there are none."""
    from mpi_dcasgd.drivers.crew import MpiCrew

    if rank.world.num_servers == 1:
        return None
    return MpiCrew(
        *(rank.comm, rank.world, rank.shards, rank.job.faults, rank.meeting.hosts, rank.spin_s),
        shared=rank.sharing.segments,
    )


def follow(rank: Rank) -> None:
    """Serve one shard until the leader says that the run is over."""
    from mpi_dcasgd.drivers.mpi_follower import FollowerLoop

    watch = watch_over_server(rank)
    shard = rank.shards[rank.comm.rank]
    follower = rank.workshop.follower(shard, rank.world.num_workers)
    shared = rank.sharing.parts(shard.begin, shard.end)
    loop = FollowerLoop(rank.comm, rank.world, follower, watch, rank.spin_s, shared)
    rank.resources.callback(loop.close)
    agree_on_kernel(rank.meeting, follower.chain.kernel)
    rank.in_step = False
    rank.meeting.barrier()
    loop.run()
    rank.in_step = not await_leave(rank.comm, rank.spin_s, watch)


def agree_on_kernel(meeting: Meeting, kernel: str) -> None:
    """Refuse servers whose updates run in different ways: a replay has one way; all ranks call.

    Args:
        meeting: Of all ranks.
        kernel: How this server's updates run; empty for a worker.

    Raises:
        LaunchError: On every rank.
    """
    told = meeting.allgather(kernel)
    if len({its for its in told if its}) > 1:
        each = ", ".join(
            f"{its} on {meeting.name(number)}" for number, its in enumerate(told) if its
        )
        raise LaunchError(
            f"the servers do not compute updates in the same way: {each}; install a C++ compiler "
            "where it is missing, or set fuse=blocks"
        )


def watch_over_server(rank: Rank) -> ServerWatch:
    """Return this rank's watch over the server, or over the one that leads."""
    from mpi_dcasgd.drivers.notes import ServerWatch
    from mpi_dcasgd.drivers.topology import SERVER

    return ServerWatch(
        rank.comm,
        rank.job.faults,
        rank.places[SERVER].host,
        followers=rank.world.follower_ranks,
    )
