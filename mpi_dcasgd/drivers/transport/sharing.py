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

_CHOSEN = "the job says so (transport)"
_SEVERAL = "memory is shared with a single server only (servers)"


@dataclass(frozen=True)
class Sharing:
    """Transport of every worker, as all ranks know it, and this rank's own memory.

    Attributes:
        reasons: Why a worker exchanges messages, one a worker; empty for one that shares memory.
        hosts: Where the workers are.
        segments: This rank's, by worker: on the server one for each that shares, on such a worker
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

    @property
    def own(self) -> Segment | None:
        """The segment of this rank, a worker; None if it exchanges messages."""
        return next(iter(self.segments.values()), None)

    def lines(self) -> list[str]:
        """Describe it for a log: who shares memory, and why others of the server's host do not."""
        near = [worker for worker, reason in enumerate(self.reasons) if not reason]
        if not self.reasons:
            return []
        if self.servers > 1:
            return [f"all workers exchange messages with {self.servers} servers: {_SEVERAL}"]
        lines = [f"{len(near)} of {len(self.reasons)} workers share memory with the server"]
        for worker, reason in enumerate(self.reasons):
            if reason not in ("", FAR, _CHOSEN):
                lines.append(f"{self._name(worker)} exchanges messages with the server: {reason}")
        return lines

    def idle_wire(self) -> list[str]:
        """Describe, where numbers are rounded for their way, that no worker has a way to go."""
        if not self.reasons or any(self.reasons):
            return []
        return [
            "all workers share memory with the server, where nothing travels: numbers are rounded "
            "all the same (wire), and no time is saved"
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
        if lines:
            raise LaunchError(
                "transport: got shared, but not every worker can share memory with the server; "
                "start all of them on its host, or allow messages (transport=auto):"
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
        world: Its topology; with several servers all vectors travel in messages.

    Raises:
        LaunchError: On every rank, if memory is to be shared and cannot be.
    """
    world = world or Topology.of_world("asynchronous", comm.size, algorithm="of this run")
    places = comm.allgather(Place.here())
    created: dict[int, Segment] = {}
    with ExitStack() as descriptors:
        offers: list[Offer | str] = []
        if comm.rank == SERVER:
            for worker, rank in enumerate(world.worker_ranks):
                obstacle = places[SERVER].apart(places[rank])
                if choice == "messages" and obstacle != FAR:
                    obstacle = _CHOSEN
                elif world.num_servers > 1:
                    obstacle = _SEVERAL
                offers.append(obstacle or _create(worker, size, created, descriptors))
        offers = comm.bcast(offers)
        reason, segments = _take_up(world.worker_of(comm.rank), offers)
        reasons = comm.allgather(reason)[world.num_servers :]
    if comm.rank == SERVER:
        segments = {worker: one for worker, one in created.items() if not reasons[worker]}
    hosts = [places[rank].host for rank in world.worker_ranks]
    sharing = Sharing(reasons, hosts, segments, world.num_servers)
    if choice == "shared":
        sharing.require_all()
    return sharing


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


def _take_up(worker: int | None, offers: Sequence[Offer | str]) -> tuple[str, dict[int, Segment]]:
    """Map what this rank is offered; return why that is not possible, and the segment if it is."""
    if worker is None:
        return "", {}
    offer = offers[worker]
    if isinstance(offer, str):
        return offer, {}
    try:
        return "", {worker: Segment.attach(offer)}
    except UnsharedError as error:
        return str(error), {}
