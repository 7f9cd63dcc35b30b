"""The servers that follow, as the leading one reaches them over MPI.

Orders go out in small messages, one after the other, and nobody waits for an answer to them. What
comes back are notes: whose stretch of a push has arrived where. A push counts as arrived only when
all servers have theirs; one in memory that a worker shares with all of them, when its header has
come. So the leader never orders an update that another server could not make,
whenever a worker dies or hangs.

A follower that dies or hangs ends the run, as the server's own end does: nobody else has its
stretch of the weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from mpi4py import MPI
from torch import Tensor

from mpi_dcasgd.drivers.backoff import CROWDED_SPIN_S, Backoff
from mpi_dcasgd.drivers.deaths import is_death
from mpi_dcasgd.drivers.fault_settings import FaultSettings
from mpi_dcasgd.drivers.newcomers import Peer
from mpi_dcasgd.drivers.patience import LAST_ONES, Watch
from mpi_dcasgd.drivers.topology import Topology
from mpi_dcasgd.errors import RanksLostError
from mpi_dcasgd.server.orders import ORDER_BYTES, CrewTag, Order, OrderKind
from mpi_dcasgd.server.shard import Shard, vectors_of, without_vectors

BATCH_BYTES = 48 * ORDER_BYTES
"""Longest message of orders: below what MPI libraries send at once, without asking."""

COUNT_WORDS = 1
"""Words of a note before the numbers of the workers: how many of them there are."""

_REPORT_EVERY_S = 0.5
_ANSWERS_S = 0.5
"""Seconds without an answer from which on a follower is not held to be at work."""


class FollowerLink:
    """Orders to one follower, and notes from it.

    Args:
        peer: Its address.
        num_workers: Number of workers.
        shared: Workers whose stretches need not arrive, for they are in memory there.

    Attributes:
        here: Whose stretch of the present push has arrived there, by worker.
    """

    def __init__(self, peer: Peer, num_workers: int, shared: Collection[int] = ()) -> None:
        comm, rank = peer
        self.peer = peer
        self.here = [worker in shared for worker in range(num_workers)]
        self._shared = shared
        self._waiting = bytearray()
        self._sending: MPI.Request | None = None
        self._sent = b""  # MPI's, until it is sent
        self._note = np.zeros(COUNT_WORDS + num_workers, dtype=np.int64)
        self._noting = comm.Recv_init(self._note, source=rank, tag=CrewTag.ARRIVALS)
        self._noting.Start()

    def tell(self, packed: bytes) -> None:
        """Send an order behind those before it."""
        self._waiting += packed
        self.flush()

    def flush(self) -> bool:
        """Send what waits, as far as the message before is out; return whether all is."""
        if self._sending is not None and not self._sending.Test():
            return False
        self._sending = None
        if not self._waiting:
            return True
        self._sent = bytes(self._waiting[:BATCH_BYTES])
        del self._waiting[:BATCH_BYTES]
        comm, rank = self.peer
        self._sending = comm.Isend([self._sent, MPI.BYTE], dest=rank, tag=CrewTag.ORDERS)
        return False

    def look(self) -> bool:
        """Take a note if there is one; return whether there was."""
        if not self._noting.Test():
            return False
        count = int(self._note[0])
        for worker in self._note[COUNT_WORDS : COUNT_WORDS + count]:
            self.here[worker] = True
        self._noting.Start()
        return True

    def forget(self, worker: int) -> None:
        """Wait for a worker's next push."""
        self.here[worker] = worker in self._shared

    def close(self) -> None:
        """Free the requests."""
        self._noting.Cancel()
        self._noting.Free()


class MpiCrew:
    """All followers of a leading server, which is this process.

    Args:
        comm: The world.
        world: Its topology.
        shards: Of all servers, in order; the first is the leader's.
        faults: When a follower is given up.
        hosts: Host of each rank.
        spin_s: Seconds that a wait polls before it sleeps.
        clock: Seconds, monotonic.
        shared: Workers that share memory with all servers.

    Attributes:
        peers: Addresses of the followers.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        world: Topology,
        shards: Sequence[Shard],
        faults: FaultSettings | None = None,
        hosts: Sequence[str] = (),
        spin_s: float = CROWDED_SPIN_S,
        clock: Callable[[], float] = time.monotonic,
        shared: Collection[int] = (),
    ) -> None:
        self.peers = [Peer(comm, rank) for rank in world.follower_ranks]
        self._shards = shards[1:]
        self._hosts = hosts
        self._spin_s = spin_s
        self._clock = clock
        self._links = [FollowerLink(peer, world.num_workers, shared) for peer in self.peers]
        self._headers: set[int] = set()  # whose header, with the leader's stretch, has arrived
        self._watch = Watch(faults or FaultSettings(), len(self.peers), clock)
        self._next_report_s = clock() + _REPORT_EVERY_S
        self._handed_out: list[tuple[MPI.Request, Any]] = []

    @property
    def num_servers(self) -> int:
        """Number of servers, the leader included."""
        return 1 + len(self.peers)

    def tell(self, order: Order) -> None:
        """Give all followers an order."""
        packed = order.pack()
        for number, link in enumerate(self._links):
            self._guarded(number, lambda link=link: link.tell(packed))  # type: ignore[misc]

    def hand_in(self, order: Order, wholes: Sequence[Tensor]) -> None:
        """Have vectors handed in as they are at this order, and wait for them."""
        self.tell(order)
        for whole in wholes:
            for number, (shard, (comm, rank)) in enumerate(
                zip(self._shards, self.peers, strict=True)
            ):
                target = shard.of(whole).numpy()
                request = comm.Irecv(target, source=rank, tag=CrewTag.VECTOR)
                self._wait(number, request.Test)

    def hand_out(self, order: Order, states: Sequence[Mapping[str, Any]]) -> None:
        """Give each follower a state to continue from, in the background."""
        self.tell(order)
        for state, (comm, rank) in zip(states, self.peers, strict=True):
            outline = comm.isend(without_vectors(state), dest=rank, tag=CrewTag.OUTLINE)
            self._handed_out.append((outline, None))
            for vector in vectors_of(state):
                request = comm.Isend(vector.numpy(), dest=rank, tag=CrewTag.VECTOR)
                self._handed_out.append((request, vector))

    def whole(self, arrived: Sequence[int] | None) -> list[int] | None:
        """Return the workers whose pushes have arrived at all servers.

        Args:
            arrived: Those whose headers have come to the leader since the last call; None if it
                waits for none.

        Returns:
            None if nothing is being waited for.
        """
        self.move()
        if arrived is None and not self._headers:
            return None
        self._headers.update(arrived or ())
        found = [w for w in self._headers if all(link.here[w] for link in self._links)]
        for worker in found:
            self.forget(worker)
        return sorted(found)

    def forget(self, worker: int) -> None:
        """Wait no longer for what is missing of a worker's push: it is whole, or will not be."""
        self._headers.discard(worker)
        for link in self._links:
            link.forget(worker)

    def watch(self) -> bool:
        """Ask followers whether they are there, from time to time.

        Returns:
            Whether all of them answer. While one does not, what is late is late because of it.

        Raises:
            RanksLostError: One died, or has been silent for too long.
        """
        for number in self._watch.look():
            silent_s, patience_s = self._watch.silent_s(number), self._watch.patience_s(number)
            if silent_s >= LAST_ONES * patience_s:
                raise RanksLostError(
                    f"{self._name(number)} hangs: nothing came from it for {silent_s:.1f} s "
                    f"({LAST_ONES:g} times the patience of {patience_s:.3g} s)",
                    hung=True,
                )
        silent_s = max(self._watch.silent_s(number) for number in range(len(self._links)))
        if silent_s == 0 and self._clock() >= self._next_report_s:
            self._next_report_s = self._clock() + _REPORT_EVERY_S
            self.tell(Order(OrderKind.REPORT))
            for number in range(len(self._links)):
                self._watch.asked(number)
        return silent_s < _ANSWERS_S

    def end(self) -> None:
        """Tell the followers that there will be no more orders, and wait until they know."""
        self.tell(Order(OrderKind.END))
        for number, link in enumerate(self._links):
            self._wait(number, link.flush)

    def close(self) -> None:
        """Free the MPI requests, those of a run that failed, too."""
        for link in self._links:
            link.close()

    def move(self) -> None:
        """Have orders and states move on, and read notes.

        Raises:
            RanksLostError: A follower died.
        """
        for number, link in enumerate(self._links):
            if self._guarded(number, link.look):
                self._watch.heard(number)
            self._guarded(number, link.flush)
        if self._handed_out:
            self._handed_out = [each for each in self._handed_out if not each[0].Test()]

    def _wait(self, number: int, done: Callable[[], bool]) -> None:
        """Wait for something from one follower, while all of them are looked after."""
        backoff = Backoff(self._spin_s)
        while not self._guarded(number, lambda: backoff.attempt(done)):
            self.move()
            if backoff.pause():
                self.watch()

    def _guarded(self, number: int, step: Callable[[], Any]) -> Any:
        """Call MPI about a follower, whose death is an error of its own."""
        try:
            return step()
        except MPI.Exception as error:
            if not is_death(error):
                raise
            raise RanksLostError(f"{self._name(number)} died") from None

    def _name(self, number: int) -> str:
        rank = self.peers[number].rank
        on = f" on {self._hosts[rank]}" if self._hosts else ""
        return f"server {number + 1} (rank {rank}{on})"
