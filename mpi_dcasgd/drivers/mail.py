"""Mail between the server and all of its workers (``mailbox`` is that of one).

Numbers of 16 bits (``wire``) become float32 as a push is read, and come from the snapshot as the
server makes a reply.

Who is there, and for how long one is waited for, is the business of ``mpi_server``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from mpi4py import MPI

from mpi_dcasgd.drivers.mailbox import Intake, Mailbox
from mpi_dcasgd.drivers.newcomers import Peer
from mpi_dcasgd.drivers.topology import Topology
from mpi_dcasgd.drivers.transport.gate import Gate
from mpi_dcasgd.drivers.transport.segment import Segment
from mpi_dcasgd.errors import ProtocolError
from mpi_dcasgd.pages import zeros
from mpi_dcasgd.server.message import Message
from mpi_dcasgd.server.slot import Slot
from mpi_dcasgd.server.wire import Wire

_PACE = 0.125
"""Weight of the last interval in the mean interval between two pushes."""


class Post:
    """All mailboxes of a server, by worker.

    Args:
        comm: The world of the server, which is this process, and its workers.
        world: Its topology.
        slots: The server's, one a worker; their messages are the replies, which are moved into
            memory that is shared.
        wire: Form of the vectors.
        shared: Memory that workers have in common with the server, by worker; the others' vectors
            travel in messages.
        name: Name of a worker for people.
        cuts: Elements at which all chunks but the first begin, of vectors that travel in messages.
        chunked: Workers to whom that applies, beside those that take the place of others; None for
            all that do not share memory.

    Attributes:
        peers: Addresses of the workers.
        boxes: Their mailboxes.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        world: Topology,
        slots: Sequence[Slot],
        wire: Wire,
        shared: Mapping[int, Segment],
        name: Callable[[int], str],
        cuts: Sequence[int] = (),
        chunked: Collection[int] | None = None,
    ) -> None:
        self._slots = slots
        self._wire = wire
        # One is read at a time, so numbers of 16 bits become float32 in one place for all.
        self._numbers = zeros(wire.size) if wire.push != "float32" else None
        self._name = name
        self._cuts = cuts
        self.peers = [Peer(comm, rank) for rank in world.worker_ranks]
        workers = range(len(slots))
        chunked = workers if chunked is None else chunked
        self.boxes = [
            self._open(worker, shared.get(worker), cuts if worker in chunked else ())
            for worker in workers
        ]
        self._receives = [box.receive for box in self.boxes]
        self._coming: list[int] = []  # workers of whose push the header is here, and not all chunks
        self._outdated: list[Mailbox] = []
        self._statuses = [MPI.Status() for _ in slots]
        self._last_s, self._pace_s = math.nan, 0.0
        self._gate = Gate(len(slots))

    @property
    def awaited(self) -> bool:
        """True if any push is being waited for."""
        return any(box.owed for box in self.boxes)

    def look(self) -> list[int] | None:
        """Return the workers whose pushes can be applied now, and see to the other messages.

        They have arrived since the last look. If there are none, it may be one whose push is still
        coming in, chunk by chunk, but is expected to be here before others' are.

        Returns:
            None if no push is being waited for.

        Raises:
            MPI.Exception: A process has died, or a message was too long (``check_truncated``).
            ProtocolError: A message was too short.
        """
        arrived = MPI.Request.Testsome(self._receives, self._statuses)
        for worker, status in zip(arrived or (), self._statuses, strict=False):
            self._check_length(worker, status)
            self._take_header(worker)
        if not self._cuts:
            return arrived
        self.move()
        if arrived is None and not self._coming:
            return None
        return self._ready(arrived or [])

    def look_beside_failures(self) -> list[int]:
        """Return the workers whose pushes have arrived after a look that raised.

        It may have completed receives, whose persistent requests are inactive now and test true.
        """
        found = []
        for worker, box in enumerate(self.boxes):
            if box.owed and worker not in self._coming and box.receive.Test():
                self._take_header(worker)
                found.append(worker)
        return self._ready(found)

    def passage(self, worker: int, spin_s: float, *, certain: bool) -> Intake | None:
        """Return the passage of a push that is ready; None if it is in one piece.

        Args:
            worker: Whose push it is.
            spin_s: Seconds that a wait polls before it sleeps.
            certain: Whether the worker is certain to be answered at once.
        """
        box = self.boxes[worker]
        return Intake(box, spin_s, certain=certain, move=self.move) if box.chunks else None

    def taken(self, worker: int) -> None:
        """Take note that a push has been applied."""
        if self._cuts:
            now = time.monotonic()
            interval_s, self._last_s = now - self._last_s, now
            if not math.isnan(interval_s):
                self._pace_s += _PACE * (interval_s - self._pace_s)
            if self.boxes[worker].chunks:
                self._gate.passed(now)
            if worker in self._coming:
                self._coming.remove(worker)

    def put_back(self, worker: int) -> None:
        """Take note that a push has broken off, and wait for all of it before it is taken again."""
        box = self.boxes[worker]
        box.put_back()
        box.disturbed = True
        if worker not in self._coming:
            self._coming.append(worker)

    def move(self) -> None:
        """Have the replies move on, and the pushes whose turn it is come in."""
        for box in self.boxes:
            if box.chunks:
                box.answered()
        self._let_in()

    def abandon(self, worker: int) -> None:
        """Expect nothing more from a worker that is dead."""
        self.boxes[worker].abandon()
        if worker in self._coming:
            self._coming.remove(worker)

    def check_truncated(self) -> None:
        """Refuse a message that was longer than its receive.

        As far as that is possible: Open MPI 5.0.11 may write past the end of what it was given.
        The handshake sees to it that no worker has longer messages.

        Raises:
            ProtocolError: It names the worker.
        """
        for status in self._statuses:
            if status.Get_error() == MPI.ERR_TRUNCATE:
                source = status.Get_source()
                worker = next((w for w, peer in enumerate(self.peers) if peer.rank == source), None)
                who = "a worker" if worker is None else self._name(worker)
                expected = self.boxes[worker or 0].header_bytes
                raise ProtocolError(f"{who} sent more than the {expected} bytes it was asked for")

    def renew(self, worker: int, peer: Peer, *, keep: bool) -> None:
        """Open a mailbox for the process that takes a worker's place.

        Args:
            worker: The worker.
            peer: Address of the new process.
            keep: The old process may still read and write its messages.
        """
        if keep:
            self._outdated.append(self.boxes[worker])
        else:
            self.boxes[worker].owed = False
            self.boxes[worker].close()
        if worker in self._coming:
            self._coming.remove(worker)
        self.peers[worker] = peer
        # Memory that was shared is that of the worker which is gone.
        self.boxes[worker] = self._open(worker, None, self._cuts)
        self._receives[worker] = self.boxes[worker].receive

    def close(self, hung: Collection[int]) -> None:
        """Free the requests, but for those of workers that hang: messages may be half-way."""
        for worker, box in enumerate(self.boxes):
            if worker not in hung:
                box.close()

    def _open(self, worker: int, segment: Segment | None, cuts: Sequence[int]) -> Mailbox:
        slot = self._slots[worker]
        if segment is None:
            push = self._wire.push_message(vector=self._numbers)
            slot.carry(self._wire.reply_message())
            return Mailbox(self.peers[worker], push, slot.message, cuts)
        slot.move(segment.reply)
        push = Message(self._wire.size, shared=segment.push)
        return Mailbox(self.peers[worker], push, slot.message)

    def _take_header(self, worker: int) -> None:
        box = self.boxes[worker]
        box.take_header()
        if box.missing:
            self._coming.append(worker)

    def _ready(self, arrived: Sequence[int]) -> list[int]:
        """Return those of the workers whose pushes are in one piece, and all who are complete."""
        ready = [worker for worker in arrived if not self.boxes[worker].owed]
        for worker in list(self._coming):
            box = self.boxes[worker]
            try:
                box.look()
            except ProtocolError as error:
                raise ProtocolError(f"{self._name(worker)}: {error}") from None
            if not box.missing:
                self._coming.remove(worker)
                ready.append(worker)
        self._let_in()
        if not ready:
            ready = [worker for worker in self._coming if self._may_begin(worker)][:1]
        return ready

    def _let_in(self) -> None:
        """Let pushes in, in the order of their headers, as the gate has room."""
        if self._coming:
            self._gate.let_in([self.boxes[worker] for worker in self._coming])

    def _may_begin(self, worker: int) -> bool:
        """Return whether an update may begin before the whole push is here.

        While it goes on all others wait: so what is missing has to come in the time in which one
        other push, on average, does. Whoever is alone keeps nobody waiting.
        """
        box = self.boxes[worker]
        if box.disturbed or 0 in box.missing:
            return False
        if len(self.boxes) == 1:
            return True
        return box.influx.chunk_s * len(box.missing) <= self._pace_s

    def _check_length(self, worker: int, status: MPI.Status) -> None:
        """Refuse a message that is shorter than it should be: the rest is of an older one."""
        received, expected = 4 * status.Get_count(MPI.INT32_T), self.boxes[worker].header_bytes
        if received != expected:
            raise ProtocolError(
                f"{self._name(worker)} sent {received} bytes, but was asked for {expected}"
            )
