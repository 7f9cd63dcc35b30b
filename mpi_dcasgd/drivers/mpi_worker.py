"""Worker of an asynchronous run: weights in, gradient out, until told to stop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

import torch
from mpi4py import MPI

from mpi_dcasgd.drivers.backoff import CROWDED_SPIN_S
from mpi_dcasgd.drivers.divided_link import DividedLink
from mpi_dcasgd.drivers.link import WorkerLink
from mpi_dcasgd.drivers.notes import ServerWatch
from mpi_dcasgd.drivers.topology import SERVER
from mpi_dcasgd.drivers.transport.segment import Segment
from mpi_dcasgd.drivers.transport.stream import Stream
from mpi_dcasgd.learning.learner import Gradient, Learner
from mpi_dcasgd.learning.prefetch import Pipeline
from mpi_dcasgd.server.message import Kind, Tag
from mpi_dcasgd.server.shard import Borders
from mpi_dcasgd.server.wire import Wire


class Link(WorkerLink):
    """Connection to the server: two messages and the persistent requests that carry them.

    A long vector comes and goes in chunks, as ``mailbox`` says.

    Args:
        comm: The server is its rank 0.
        wire: Form of the vectors.
        device: Device of the model.
        spin_s: Seconds that a wait polls before it sleeps.
        watch: Watches over the server while its reply is waited for; nobody if None.
        shared: Memory that this worker has in common with the server; None to exchange messages.
        cuts: Elements at which all chunks but the first begin, where messages come in chunks.

    Attributes:
        chunked: Whether vectors come and go in chunks.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        wire: Wire,
        device: torch.device,
        spin_s: float = CROWDED_SPIN_S,
        watch: ServerWatch | None = None,
        shared: Segment | None = None,
        cuts: Sequence[int] = (),
    ) -> None:
        whole = Borders(0, wire.num_params, wire.size)
        super().__init__(wire, (whole,), device, spin_s, watch, shared)
        if shared is not None:
            cuts = ()
        header, *replies = self.reply.parts(cuts) if cuts else [self.reply.raw]
        self._chunks = [comm.Recv_init(part, source=SERVER, tag=Tag.CHUNK) for part in replies]
        self._receiving = comm.Recv_init(header, source=SERVER, tag=Tag.REPLY)
        header, *pushes = self.push.parts(cuts) if cuts else [self.push.raw]
        self._sends = [comm.Send_init(header, dest=SERVER, tag=Tag.PUSH)]
        self._sends += [comm.Send_init(part, dest=SERVER, tag=Tag.CHUNK) for part in pushes]
        self._out = Stream()
        self.chunked = bool(pushes)

    def expect(self) -> None:
        """Start to receive the next reply; the weights are undefined until it is here."""
        self._expecting = True
        for request in (self._receiving, *self._chunks):
            request.Start()

    def send(self) -> None:
        """Start to send the push; its vector must not be touched until the reply is here."""
        self._out.add(self._sends)

    def wait(self) -> None:
        """Wait for the reply, which means that the push has been received."""
        here = self._is_here if self._chunks else self._receiving.Test
        self._wait(here, self._spin_s)
        while self.reply.kind is Kind.AGAIN:
            self._receiving.Start()
            for request in self._chunks[: self.reply.version]:
                request.Start()
            self._wait(here, self._spin_s)
        self._expecting = False
        self._wait(self._out.move, self._spin_s)

    def _is_here(self) -> bool:
        self._out.move()  # the push leaves meanwhile
        return MPI.Request.Testall([self._receiving, *self._chunks])

    def close(self) -> None:
        """Free the MPI requests, those of a run that failed, too."""
        receives = (self._receiving, *self._chunks)
        for request in receives if self._expecting else ():
            with suppress(MPI.Exception):  # the server has died
                if not request.Test():
                    request.Cancel()  # or a reply could still come in, into memory of others
        for request in (*receives, *self._sends):
            request.Free()
        self.unlock()


def run_worker(link: Link | DividedLink, learner: Learner, *, background: bool) -> None:
    """Compute gradients until the server says stop; the first reply must already be expected.

    Args:
        link: Connection to the server, or to several.
        learner: Bound to the link's vectors, or to vectors of its own if the link is staged.
        background: Load granted tickets ahead of their turn.
    """
    flat = learner.flat
    with Pipeline(learner, background=background) as pipeline:
        while True:
            started = time.perf_counter_ns()
            link.wait()
            if link.reply.kind is Kind.STOP:
                return
            arrived = time.perf_counter_ns()
            if link.reply.kind is Kind.AFRESH:
                pipeline.forget()
            pipeline.grant(link.reply.tickets)
            batch = pipeline.next()
            loaded = time.perf_counter_ns()
            link.read_weights(flat)
            found = learner.gradient(batch)
            link.write_gradient(flat, found.norm)
            link.push.write_push(
                version=link.reply.version,
                ticket=found.ticket,
                samples=found.samples,
                loss=found.loss,
                grad_norm=found.norm,
                compute_ns=time.perf_counter_ns() - loaded,
                wait_ns=arrived - started,
                data_ns=loaded - arrived,
                stats_finite=_stats_finite(link, learner, found),
            )
            link.expect()
            link.send()


def _stats_finite(link: Link | DividedLink, learner: Learner, found: Gradient) -> bool | None:
    """Return whether the statistics are finite; None if the server sees to it.

    It cannot before the last chunk is there, and is to know it before the first is applied.
    """
    if found.stats_finite is not None or not link.chunked:
        return found.stats_finite
    return bool(torch.isfinite(link.statistics).all())
