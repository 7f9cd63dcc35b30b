"""A worker's connection to several servers, each of which has a stretch of the vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mpi4py import MPI

from mpi_dcasgd.drivers.backoff import CROWDED_SPIN_S, wait_until
from mpi_dcasgd.drivers.notes import ServerWatch
from mpi_dcasgd.drivers.topology import Topology
from mpi_dcasgd.learning.flat import FlatModel
from mpi_dcasgd.server.message import Message, Tag
from mpi_dcasgd.server.shard import Shard


class DividedLink:
    """Two messages as those of ``Link``, whose stretches go to, and come from, different servers.

    The leader's has the header in front of it; the others' are parts of the vector and no more, so
    nothing is copied here either. The reply is complete when all stretches are here.

    Args:
        comm: The world.
        world: Its topology.
        shards: Of all servers, in order.
        device: Device of the model.
        spin_s: Seconds that a wait polls before it sleeps.
        watch: Watches over the leading server while replies are waited for; nobody if None.

    Attributes:
        shares: False: no memory is shared with several servers.
        chunked: True: the leader decides about a push before, and without, seeing all of it.
        staged: Whether the model has vectors of its own, and weights and gradient are copied.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        world: Topology,
        shards: Sequence[Shard],
        device: torch.device,
        spin_s: float = CROWDED_SPIN_S,
        watch: ServerWatch | None = None,
    ) -> None:
        self._spin_s = spin_s
        self._wait = watch.wait if watch else wait_until
        self._expecting = False
        self.device = device
        self.shares = False
        self.chunked = True
        self.staged = device.type != "cpu"
        size, pinned = shards[-1].end, device.type == "cuda"
        self.reply = Message(size, pinned=pinned)
        self.push = Message(size, pinned=pinned)
        servers = list(zip(world.server_ranks, shards, strict=True))
        self._receiving = [
            comm.Recv_init(self.reply.piece(one.begin, one.end), source=rank, tag=Tag.REPLY)
            for rank, one in servers
        ]
        self._sending = [
            comm.Send_init(self.push.piece(one.begin, one.end), dest=rank, tag=Tag.PUSH)
            for rank, one in servers
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

    def read_weights(self, flat: FlatModel) -> None:
        """Have the model's weights be those of the reply."""
        if self.staged:
            flat.weights.copy_(self.reply.vector, non_blocking=True)

    def write_gradient(self, flat: FlatModel, norm: float) -> None:
        """Have the push carry the model's gradient; its norm is not needed for that here."""
        if self.staged:
            self.push.vector.copy_(flat.grad, non_blocking=True)
        if self.device.type == "cuda":
            # Asking for the loss has already waited for the gradient; this waits for the copy.
            torch.cuda.current_stream(self.device).synchronize()

    def statistics(self, flat: FlatModel) -> torch.Tensor:
        """Return the statistics that the push carries, on the host."""
        return self.push.vector[flat.layout.num_params :]

    def close(self) -> None:
        """Free the MPI requests, those of a run that failed, too."""
        for receive in self._receiving:
            if self._expecting:
                receive.Cancel()
            receive.Free()
        for send in self._sending:
            send.Free()
