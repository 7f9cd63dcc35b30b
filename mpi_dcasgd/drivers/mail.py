"""Mail between the server and its workers: messages, and the persistent requests that carry them.

Each worker has one persistent receive and one persistent send, created once. Both are of headers
alone where the worker shares memory with the server: its push is then read, and its reply written,
where the worker has them. Neither touches them while they are the other's: a vector is the
server's from the header of the push to that of the reply. The receive for a worker's next push is
started before its reply goes out, so a push always finds a receive posted.

Numbers of 16 bits (``wire``) become float32 as a push is read, and come from the snapshot as the
server makes a reply.

Who is there, and for how long one is waited for, is the business of ``mpi_server``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from mpi4py import MPI

from mpi_dcasgd.drivers.newcomers import Peer
from mpi_dcasgd.drivers.topology import Topology
from mpi_dcasgd.drivers.transport.segment import Segment
from mpi_dcasgd.errors import ProtocolError
from mpi_dcasgd.pages import zeros
from mpi_dcasgd.server.message import Message, Tag
from mpi_dcasgd.server.slot import Slot
from mpi_dcasgd.server.wire import Wire


class Mailbox:
    """Mail of one worker at the server: its pushes come in, and its replies go out.

    Args:
        peer: Address of the worker.
        push: Message that its pushes are received into.
        reply: Message that its replies are sent from.

    Attributes:
        push: As above.
        receive: The request that receives pushes.
        owed: Whether a push is being waited for.
    """

    def __init__(self, peer: Peer, push: Message, reply: Message) -> None:
        comm, rank = peer
        self.push = push
        self._reply = reply  # its memory is read until the last send is over
        self.receive = comm.Recv_init(push.raw, source=rank, tag=Tag.PUSH)
        self._send = comm.Send_init(reply.raw, dest=rank, tag=Tag.REPLY)
        self.owed = False

    def ask(self) -> None:
        """Start to receive the worker's next push."""
        self.receive.Start()
        self.owed = True

    def answer(self) -> None:
        """Start to send the reply."""
        self._send.Start()

    def answered(self) -> bool:
        """Return whether the last reply is out of its memory."""
        return self._send.Test()

    def close(self) -> None:
        """Free the requests."""
        if self.owed:
            self.receive.Cancel()  # or a push could still come in, into memory that is others'
        self.receive.Free()
        self._send.Free()


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
    ) -> None:
        self._slots = slots
        self._wire = wire
        # One is read at a time, so numbers of 16 bits become float32 in one place for all.
        self._numbers = zeros(wire.size) if wire.push != "float32" else None
        self._name = name
        self.peers = [Peer(comm, rank) for rank in world.worker_ranks]
        self.boxes = [self._open(worker, shared.get(worker)) for worker in range(len(slots))]
        self._receives = [box.receive for box in self.boxes]
        self._outdated: list[Mailbox] = []
        self._statuses = [MPI.Status() for _ in slots]

    @property
    def awaited(self) -> bool:
        """True if any push is being waited for."""
        return any(box.owed for box in self.boxes)

    def look(self) -> list[int] | None:
        """Return the workers whose pushes have arrived since the last look, and are due no more.

        Returns:
            None if no push is being waited for.

        Raises:
            MPI.Exception: A process has died, or a message was too long (``check_truncated``).
            ProtocolError: A message was too short.
        """
        arrived = MPI.Request.Testsome(self._receives, self._statuses)
        for worker, status in zip(arrived or (), self._statuses, strict=False):
            self._check_length(worker, status)
            self.boxes[worker].owed = False
        return arrived

    def look_beside_failures(self) -> list[int]:
        """Return the workers whose pushes have arrived after a look that raised.

        It may have completed receives, whose persistent requests are inactive now and test true.
        """
        found = [w for w, box in enumerate(self.boxes) if box.owed and box.receive.Test()]
        for worker in found:
            self.boxes[worker].owed = False
        return found

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
                expected = self.boxes[worker or 0].push.raw.nbytes
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
        self.peers[worker] = peer
        # Memory that was shared is that of the worker which is gone.
        self.boxes[worker] = self._open(worker, None)
        self._receives[worker] = self.boxes[worker].receive

    def close(self, hung: Collection[int]) -> None:
        """Free the requests, but for those of workers that hang: messages may be half-way."""
        for worker, box in enumerate(self.boxes):
            if worker not in hung:
                box.close()

    def _open(self, worker: int, segment: Segment | None) -> Mailbox:
        slot = self._slots[worker]
        if segment is None:
            push = self._wire.push_message(vector=self._numbers)
            slot.carry(self._wire.reply_message())
        else:
            push = Message(self._wire.size, shared=segment.push)
            slot.move(segment.reply)
        return Mailbox(self.peers[worker], push, slot.message)

    def _check_length(self, worker: int, status: MPI.Status) -> None:
        """Refuse a message that is shorter than it should be: the rest is of an older one."""
        words, expected = status.Get_count(MPI.INT32_T), self.boxes[worker].push.raw.size
        if words != expected:
            raise ProtocolError(
                f"{self._name(worker)} sent {4 * words} bytes, but was asked for {4 * expected}"
            )
