"""A worker's connection to several servers, each of which has a stretch of the vector."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch
from mpi4py import MPI

from mpi_dcasgd.drivers.backoff import CROWDED_SPIN_S
from mpi_dcasgd.drivers.link import WorkerLink
from mpi_dcasgd.drivers.notes import ServerWatch
from mpi_dcasgd.drivers.topology import Topology
from mpi_dcasgd.drivers.transport.segment import Segment
from mpi_dcasgd.server.message import Tag
from mpi_dcasgd.server.shard import Shard
from mpi_dcasgd.server.wire import Wire


class DividedLink(WorkerLink):
    """Two messages as those of ``Link``, whose stretches go to, and come from, different servers.

    The leader's has the header in front of it; the others' are stretches of the vector and no more.
    The reply is complete when all of them are here. Where memory is shared, a push is its header,
    to the leader alone, for it says that all of the vector is there; a reply is a message of each
    server all the same, that its stretch is done.

    Args:
        comm: The world.
        world: Its topology.
        shards: Of all servers, in order.
        wire: Form of the whole vectors.
        device: Device of the model.
        spin_s: Seconds that a wait polls before it sleeps.
        watch: Watches over the leading server while replies are waited for; nobody if None.
        shared: Memory that this worker has in common with all servers; None for messages.

    Attributes:
        chunked: True: the leader decides about a push before, and without, seeing all of it.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        world: Topology,
        shards: Sequence[Shard],
        wire: Wire,
        device: torch.device,
        spin_s: float = CROWDED_SPIN_S,
        watch: ServerWatch | None = None,
        shared: Segment | None = None,
    ) -> None:
        borders = [shard.borders for shard in shards]
        super().__init__(wire, borders, device, spin_s, watch, shared)
        self.chunked = True
        told = world.server_ranks[:1] if self.shares else world.server_ranks
        self._receiving = [
            comm.Recv_init(buffer, source=rank, tag=Tag.REPLY)
            for rank, buffer in zip(world.server_ranks, self._pulled.buffers, strict=True)
        ]
        self._sending = [
            comm.Send_init(buffer, dest=rank, tag=Tag.PUSH)
            for rank, buffer in zip(told, self._pushed.buffers, strict=False)
        ]

    def expect(self) -> None:
        """Start to receive the next reply; the weights are undefined until it is here."""
        self._expecting = True
        MPI.Prequest.Startall(self._receiving)

    def send(self) -> None:
        """Start to send the push; its vector must not be touched until the reply is here."""
        MPI.Prequest.Startall(self._sending)

    def wait(self) -> None:
        """Wait for the reply of all servers, which means that all have received the push."""
        self._wait(lambda: MPI.Request.Testall(self._receiving), self._spin_s)
        self._expecting = False
        self._wait(lambda: MPI.Request.Testall(self._sending), self._spin_s)

    def close(self) -> None:
        """Free the MPI requests, those of a run that failed, too."""
        for receive in self._receiving:
            if self._expecting:
                with suppress(MPI.Exception):  # the server has died
                    receive.Cancel()
            receive.Free()
        for send in self._sending:
            send.Free()
        self.unlock()
