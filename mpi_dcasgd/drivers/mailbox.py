"""Mail of one worker at the server: its pushes come in, and its replies go out.

All requests are persistent, and are created once. Where the worker shares memory with the server,
both messages are headers alone: its push is then read, and its reply written, where the worker has
them. Neither touches them while they are the other's: a vector is the server's from the header of
the push to that of the reply. The receives for a worker's next push are started before its reply
goes out, so a push always finds a receive posted.

A long vector comes and goes in chunks. The header of a push is the first of its messages, the
header of a reply the last. The chunks of a push are received once it is let in; until then MPI
leaves them with the worker. Chunks of a reply leave while the update is still under way; if it is
taken back they are sent again later, which a header of the kind AGAIN tells the worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise

from mpi4py import MPI

from mpi_dcasgd.drivers.backoff import Backoff
from mpi_dcasgd.drivers.deaths import is_death
from mpi_dcasgd.drivers.newcomers import Peer
from mpi_dcasgd.drivers.orphan import launcher
from mpi_dcasgd.drivers.transport.gate import Influx
from mpi_dcasgd.drivers.transport.stream import Stream
from mpi_dcasgd.errors import ProtocolError
from mpi_dcasgd.server.message import Kind, Message, Tag
from mpi_dcasgd.server.passage import BrokenOffError


class Mailbox:
    """Mail of one worker.

    Args:
        peer: Address of the worker.
        push: Message that its pushes are received into.
        reply: Message that its replies are sent from.
        cuts: Elements at which all chunks but the first begin; none if vectors are in one piece.

    Attributes:
        push: As above.
        receive: The request that receives the header of a push, and all of it if it has no chunks.
        chunks: Number of chunks.
        owed: Whether a push is being waited for, or some of its chunks.
        inside: Whether its chunks are being received.
        influx: These chunks as they come in.
        missing: Chunks of it that are not here.
        disturbed: Whether the push that is coming is waited for as a whole: it has been put back,
            or its worker was given up.
    """

    def __init__(self, peer: Peer, push: Message, reply: Message, cuts: Sequence[int] = ()) -> None:
        comm, rank = peer
        self.push = push
        self._reply = reply  # its memory is read until the last send is over
        self._again = Message(0)
        header, *self._parts = push.parts(cuts) if cuts else [push.raw]
        answer, *replies = reply.parts(cuts) if cuts else [reply.raw]
        self.receive = comm.Recv_init(header, source=rank, tag=Tag.PUSH)
        self._coming = [comm.Recv_init(part, source=rank, tag=Tag.CHUNK) for part in self._parts]
        self._header = comm.Send_init(answer, dest=rank, tag=Tag.REPLY)
        self._once_more = comm.Send_init(self._again.raw, dest=rank, tag=Tag.REPLY)
        self._leaving = [comm.Send_init(part, dest=rank, tag=Tag.CHUNK) for part in replies]
        self._statuses = [MPI.Status() for _ in self._coming]
        self._pieces = list(pairwise((0, *cuts, push.vector.numel())))
        self._out = Stream()
        self._early = self._stale = 0  # chunks that have left before the reply, or in vain
        self.header_bytes = header.nbytes
        self.chunks = len(self._coming)
        self.owed = False
        self.inside = False
        self.missing: set[int] = set()
        self.disturbed = False
        self.influx = Influx()

    def ask(self) -> None:
        """Start to receive the worker's next push, of one in chunks the header."""
        self.receive.Start()
        self.inside = False
        self.missing = set(range(self.chunks))
        self.owed = True
        self.disturbed = False

    def take_header(self) -> None:
        """Take note that the header of the push is here."""
        self.owed = bool(self.missing)

    def let_in(self) -> None:
        """Start to receive the chunks of the push whose header is here."""
        self.inside = True
        self.influx.begin()
        for request in self._coming:
            request.Start()

    def look(self) -> None:
        """Receive chunks of the push whose header is here.

        Raises:
            MPI.Exception: The worker has died.
            ProtocolError: A chunk is shorter than it should be.
        """
        if not self.missing or not self.inside:
            return
        arrived = MPI.Request.Testsome(self._coming, self._statuses)
        if arrived:
            self.influx.add(len(arrived))
        for chunk, status in zip(arrived or (), self._statuses, strict=False):
            words, expected = status.Get_count(MPI.INT32_T), self._parts[chunk].size
            if words != expected:
                raise ProtocolError(f"a chunk of {4 * words} bytes came in place of {4 * expected}")
            self.missing.discard(chunk)
        if not self.missing:
            self.owed = False

    @property
    def flows(self) -> bool:
        """True if chunks of a push are coming in, and none is overdue."""
        return self.inside and bool(self.missing) and not (self.disturbed or self.influx.overdue)

    def read(self, chunk: int) -> None:
        """Have the push's vector carry a chunk that is here, as float32."""
        self.push.read_chunk(*self._pieces[chunk])

    def leave(self, chunk: int) -> None:
        """Send a chunk of the reply before the others; in order, from the first."""
        if not self._stale:
            self._early = chunk + 1
            self._out.add([self._leaving[chunk]])

    def put_back(self) -> None:
        """Take note that what has left early of the reply is not what the worker is to have."""
        self._stale = max(self._stale, self._early)
        self._early = 0

    def answer(self) -> None:
        """Start to send the reply, or what of it has not left yet."""
        stale, early = self._stale, self._early
        self._stale = self._early = 0
        if stale:
            self._again.write_reply(Kind.AGAIN, stale, ())
            self._out.add([*self._leaving[stale:], self._once_more, *self._leaving[:stale]])
        else:
            self._out.add(self._leaving[early:])
        self._out.add([self._header])

    def answered(self) -> bool:
        """Send what can be sent; return whether nothing of a reply is under way any more."""
        return self._out.move()

    def abandon(self) -> None:
        """Expect nothing more from a worker that is dead, and send it nothing more."""
        self.owed = False
        self.missing.clear()
        self._out.clear()

    def close(self) -> None:
        """Free the requests."""
        receives = (self.receive, *self._coming)
        for request in receives if self.owed else ():
            with suppress(MPI.Exception):  # the worker has died just now
                if not request.Test():
                    request.Cancel()  # or a push could still come in, into memory that is others'
        for request in (*receives, self._header, self._once_more, *self._leaving):
            request.Free()


class Intake:
    """Passage of one push in chunks: waits for those of the push, and sends those of the reply.

    Args:
        box: The worker's.
        spin_s: Seconds that a wait polls before it sleeps.
        certain: Whether the reply will be what the update leaves behind: its chunks then leave
            before it is over.
        move: Has the replies to all workers move on.

    Attributes:
        waited_s: Seconds spent waiting.
        died: Whether the push has broken off because the worker died.
    """

    def __init__(
        self, box: Mailbox, spin_s: float, *, certain: bool, move: Callable[[], None]
    ) -> None:
        self._box = box
        self._spin_s = spin_s
        self._certain = certain
        self._move = move
        self.waited_s = 0.0
        self.died = False

    def arrive(self, chunk: int) -> bool:
        """Wait for a chunk, and tell whether all are here (``Passage``)."""
        box = self._box
        if chunk in box.missing:
            self._wait(lambda: chunk not in box.missing)
        box.read(chunk)
        return not box.missing

    def arrive_all(self) -> None:
        """Wait for all chunks (``Passage``)."""
        for chunk in range(self._box.chunks):
            self.arrive(chunk)

    def leave(self, chunk: int) -> None:
        """Send a chunk of the reply, if it is certain to be one (``Passage``)."""
        if self._certain:
            self._box.leave(chunk)

    def _wait(self, done: Callable[[], bool]) -> None:
        box = self._box
        patience_s = box.influx.patience_s
        began = time.monotonic()
        backoff = Backoff(self._spin_s)

        def poll() -> bool:
            box.look()
            return done()

        try:
            while not backoff.attempt(poll):
                self._move()
                backoff.pause()
                if launcher.gone or time.monotonic() - began > patience_s:
                    raise BrokenOffError("the rest of a push does not come")
        except MPI.Exception as error:
            if not is_death(error):
                raise
            self.died = True
            raise BrokenOffError("a worker died in the middle of a push") from error
        finally:
            self.waited_s += time.monotonic() - began
