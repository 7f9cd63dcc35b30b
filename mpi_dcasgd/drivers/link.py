"""Vectors and their form, which a worker's connections to one server and to several have in common.

On the CPU the model's weights are what replies bring and its gradient is what pushes take: nothing
is copied. On a GPU both are page-locked and staged through. Where the worker shares memory with its
servers, both vectors lie there, and messages are headers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mpi_dcasgd.drivers.backoff import CROWDED_SPIN_S, wait_until
from mpi_dcasgd.drivers.transport.segment import Segment, page_lock, unlock_pages
from mpi_dcasgd.learning.flat import FlatModel
from mpi_dcasgd.pages import zeros
from mpi_dcasgd.server.message import Message
from mpi_dcasgd.server.precision import Precision
from mpi_dcasgd.server.shard import Borders
from mpi_dcasgd.server.wire import NarrowMessage, Wire, round_gradient

if TYPE_CHECKING:  # vectors and messages can be made where there is no MPI
    from mpi_dcasgd.drivers.notes import ServerWatch

_NOTHING = np.empty(0, dtype=np.int32)


class Carrier:
    """A vector on its way from or to each server, behind one header.

    Args:
        precision: Of its parameters on their way.
        borders: Of each server's stretch, in order.
        pinned: Whether to use page-locked memory.
        staged: Whether the numbers are somewhere else, and go to and from there.
        shared: The vector itself, in memory that the servers have, too; None for messages.

    Attributes:
        message: Has the header.
        vector: All of it as float32, shape (size,); empty if it is staged in 16 bits.
        buffers: What travels from or to each server; the first has the header.
    """

    def __init__(
        self,
        precision: Precision,
        borders: Sequence[Borders],
        *,
        pinned: bool = False,
        staged: bool = False,
        shared: Tensor | None = None,
    ) -> None:
        size = borders[-1].end
        self._borders = borders
        self._narrow: list[NarrowMessage] = []
        if shared is None and precision != "float32":
            self.vector = torch.empty(0) if staged else zeros(size)
            self._narrow = [
                NarrowMessage(
                    border - begin,
                    end - border,
                    precision,
                    pinned=pinned,
                    vector=self.vector[begin:end],
                )
                for begin, border, end in borders
            ]
            self.message: Message = self._narrow[0]
            self.buffers = [self.message.raw, *(one.body for one in self._narrow[1:])]
            return
        self.message = Message(size, pinned=pinned, shared=shared)
        self.vector = self.message.vector
        if shared is None:
            self.buffers = [self.message.piece(begin, end) for begin, _, end in borders]
        else:
            self.buffers = [self.message.raw, *(_NOTHING for _ in borders[1:])]

    @property
    def converts(self) -> bool:
        """True if numbers travel in another form than that of ``vector``."""
        return bool(self._narrow)

    @property
    def statistics(self) -> Tensor:
        """The statistics as they travel, on the host."""
        return self._narrow[-1].stats if self._narrow else self.vector[self._borders[-1].border :]

    def write(self, source: Tensor, norm: float) -> None:
        """Write what is to travel.

        Args:
            source: The numbers, on any device, shape (size,).
            norm: Of a gradient, as its header says.
        """
        if not self._narrow:
            self.vector.copy_(source, non_blocking=True)
        for one, (begin, _, end) in zip(self._narrow, self._borders, strict=False):
            one.pack(norm, source[begin:end])

    def read(self, target: Tensor) -> None:
        """Read weights that have come into a vector on any device, shape (size,)."""
        if not self._narrow:
            target.copy_(self.vector, non_blocking=True)
        for one, (begin, _, end) in zip(self._narrow, self._borders, strict=False):
            one.unpack(target=target[begin:end])


class WorkerLink:
    """A worker's side of the vectors; who is served by how many servers is left to others.

    Args:
        wire: Form of the vectors.
        borders: Of each server's stretch, in order.
        device: Device of the model.
        spin_s: Seconds that a wait polls before it sleeps.
        watch: Watches over the server while its reply is waited for; nobody if None.
        shared: Memory that this worker has in common with its servers; None for messages.

    Attributes:
        reply: Has the header of a reply.
        push: Has the header of a push.
        weights: What replies bring, shape (size,).
        grad: What pushes take, likewise.
        shares: Whether it shares memory with its servers.
        staged: Whether the model has vectors of its own, and weights and gradient are copied.
    """

    def __init__(
        self,
        wire: Wire,
        borders: Sequence[Borders],
        device: torch.device,
        spin_s: float = CROWDED_SPIN_S,
        watch: ServerWatch | None = None,
        shared: Segment | None = None,
    ) -> None:
        self._spin_s = spin_s
        self._wait = watch.wait if watch else wait_until
        self._expecting = False
        self.device = device
        self.shares = shared is not None
        self.staged = device.type != "cpu"
        self._wire = wire
        pinned = device.type == "cuda"
        self._pulled, self._pushed = (
            Carrier(precision, borders, pinned=pinned, staged=self.staged, shared=vector)
            for precision, vector in (
                (wire.reply, shared.reply if shared else None),
                (wire.push, shared.push if shared else None),
            )
        )
        self.reply, self.push = self._pulled.message, self._pushed.message
        self.weights, self.grad = self._pulled.vector, self._pushed.vector
        self._locked: list[Tensor] = []
        if shared and pinned:
            self._locked = [one for one in (shared.reply, shared.push) if page_lock(one)]

    def read_weights(self, flat: FlatModel) -> None:
        """Have the model's weights be those of the reply."""
        if self.staged or self._pulled.converts:
            self._pulled.read(flat.weights)

    def write_gradient(self, flat: FlatModel, norm: float) -> None:
        """Have the push carry the model's gradient.

        Args:
            flat: The model.
            norm: Of the gradient, as the push will say.
        """
        if self._wire.push != "float32" and not self._pushed.converts:
            # Nothing travels where memory is shared, but what a run computes must not depend
            # on where its workers are.
            round_gradient(flat.grad[: self._wire.num_params], self._wire.push, norm)
        if self.staged or self._pushed.converts:
            self._pushed.write(flat.grad, norm)
        if self.device.type == "cuda":
            # Asking for the loss has already waited for the gradient; this waits for the copy.
            torch.cuda.current_stream(self.device).synchronize()

    @property
    def statistics(self) -> Tensor:
        """The statistics of the push, as they travel, on the host."""
        return self._pushed.statistics

    def unlock(self) -> None:
        """Give back what was page-locked, before the memory is unmapped."""
        for vector in self._locked:
            unlock_pages(vector)
