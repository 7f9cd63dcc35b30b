"""Agreement on which workers share memory with the server; the others exchange messages with it.

Every rank takes part. The server creates a segment for each worker that is where it is, and the
worker proves that it sees the same memory by really opening it. What is on another host, or cannot
see the server's memory, is left with messages, and the reason is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal

from mpi_dcasgd.drivers.meeting import Ranks
from mpi_dcasgd.drivers.topology import SERVER, Topology
from mpi_dcasgd.drivers.transport import Transport, TransportChoice
from mpi_dcasgd.drivers.transport.chunks import ChunkSize
from mpi_dcasgd.drivers.transport.place import FAR, Place
from mpi_dcasgd.drivers.transport.segment import Offer, Segment, UnsharedError
from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.wording import counted

_CHOSEN = "the job says so (transport)"


@dataclass(frozen=True)
class Sharing:
    """Transport of every worker, as all ranks know it, and this rank's own memory.

    Attributes:
        reasons: Why a worker exchanges messages, one a worker; empty for one that shares memory.
        hosts: Where the workers are.
        segments: This rank's, by worker: on a server one for each that shares, on such a worker
            its own.
        servers: Number of servers.
    """

    reasons: Sequence[str] = ()
    hosts: Sequence[str] = ()
    segments: dict[int, Segment] = field(default_factory=dict)
    servers: int = 1

    def transport(self, worker: int | None) -> Transport | Literal[""]:
        """Return how a worker's vectors travel; empty for who is none, or has no server."""
        if worker is None or not self.reasons:
            return ""
        return "messages" if self.reasons[worker] else "shared"

    def chunked(self, choice: ChunkSize) -> frozenset[int]:
        """Return the workers whose vectors travel in chunks, if they are long enough.

        Within a host messages are copies, by the very processor that would apply chunks meanwhile.

        Args:
            choice: The job's ``chunk_mb``; ``auto`` for chunks between hosts alone.
        """
        wanted = (FAR,) if choice == "auto" else tuple(filter(None, self.reasons))
        return frozenset(w for w, reason in enumerate(self.reasons) if reason in wanted)

    def parts(self, begin: int, end: int) -> dict[int, Segment]:
        """Return stretches of the segments, for a server that has no more of the vector."""
        return {worker: segment.part(begin, end) for worker, segment in self.segments.items()}

    @property
    def own(self) -> Segment | None:
        """The segment of this rank, a worker; None if it exchanges messages."""
        return next(iter(self.segments.values()), None)

    def lines(self) -> list[str]:
        """Describe it for a log: who shares memory, and why others of the server's host do not."""
        near = [worker for worker, reason in enumerate(self.reasons) if not reason]
        if not self.reasons:
            return []
        lines = [
            f"{len(near)} of {counted(len(self.reasons), 'worker')} share memory with {self._whom}"
        ]
        for worker, reason in enumerate(self.reasons):
            if reason not in ("", FAR, _CHOSEN):
                lines.append(f"{self._name(worker)} exchanges messages with {self._whom}: {reason}")
        return lines

    @property
    def _whom(self) -> str:
        return "the server" if self.servers == 1 else f"all {counted(self.servers, 'server')}"

    def idle_wire(self) -> list[str]:
        """Describe, where numbers are rounded for their way, that no worker has a way to go."""
        if not self.reasons or any(self.reasons):
            return []
        return [
            f"all workers share memory with {self._whom}, where nothing travels: numbers are "
            "rounded all the same (wire), and no time is saved"
        ]

    def require_all(self) -> None:
        """Refuse a world in which a worker does not share memory with the server.

        Raises:
            LaunchError: It names the workers and the reasons.
        """
        lines = [
            f"\n  {self._name(worker)}: {reason}"
            for worker, reason in enumerate(self.reasons)
            if reason
        ]
        where = "its host" if self.servers == 1 else "one host with them"
        if lines:
            raise LaunchError(
                f"transport: got shared, but not every worker can share memory with {self._whom}; "
                f"start all of them on {where}, or allow messages (transport=auto):"
                + "".join(lines)
            )

    def _name(self, worker: int) -> str:
        rank = Topology("asynchronous", len(self.reasons), self.servers).rank_of(worker)
        return f"worker {worker} (rank {rank} on {self.hosts[worker]})"


def share_memory(
    comm: Ranks, choice: TransportChoice, size: int, world: Topology | None = None
) -> Sharing:
    """Find out which workers share memory with the server, and map it; all ranks must call this.

    Args:
        comm: Rank 0 serves, all others are workers, unless ``world`` says something else.
        choice: ``auto`` for memory where it can be shared, ``shared`` to refuse any other world,
            ``messages`` for no memory.
        size: Elements of a vector.
        world: Its topology; with several servers a worker shares memory with all or none of them.

    Raises:
        LaunchError: On every rank, if memory is to be shared and cannot be.
    """
    world = world or Topology.of_world("asynchronous", comm.size, algorithm="of this run")
    places = comm.allgather(Place.here())
    segments: dict[int, Segment] = {}
    with ExitStack() as descriptors:
        offers: list[Offer | str] = []
        if comm.rank == SERVER:
            for worker, rank in enumerate(world.worker_ranks):
                obstacle = _apart([places[server] for server in world.server_ranks], places[rank])
                if choice == "messages" and obstacle != FAR:
                    obstacle = _CHOSEN
                offers.append(obstacle or _create(worker, size, segments, descriptors))
        offers = comm.bcast(offers)
        reasons = {w: offer for w, offer in enumerate(offers) if isinstance(offer, str)}
        if comm.rank != SERVER:
            own = world.worker_of(comm.rank)
            for worker in range(world.num_workers) if own is None else (own,):
                reasons |= _take_up(worker, offers[worker], segments)
        told = comm.allgather(reasons)
    # Those of the server first: who was offered none has nothing else to say.
    why = [next((its[w] for its in told if w in its), "") for w in range(world.num_workers)]
    hosts = [places[rank].host for rank in world.worker_ranks]
    segments = {worker: one for worker, one in segments.items() if not why[worker]}
    sharing = Sharing(why, hosts, segments, world.num_servers)
    if choice == "shared":
        sharing.require_all()
    return sharing


def _apart(servers: Sequence[Place], worker: Place) -> str:
    """Return why a worker has no memory in common with all servers; empty if it may."""
    return next(filter(None, (place.apart(worker) for place in servers)), "")


def _create(
    worker: int, size: int, created: dict[int, Segment], descriptors: ExitStack
) -> Offer | str:
    """Create a worker's segment, and return where it is found, or why there is none."""
    try:
        created[worker], descriptor = Segment.create(size)
    except UnsharedError as error:
        return str(error)
    descriptors.callback(descriptor.close)
    return descriptor.offer


def _take_up(worker: int, offer: Offer | str, segments: dict[int, Segment]) -> dict[int, str]:
    """Map a worker's segment if it is offered; return why that is not possible, by worker."""
    if isinstance(offer, str):
        return {}
    try:
        segments[worker] = Segment.attach(offer)
    except UnsharedError as error:
        return {worker: str(error)}
    return {}
