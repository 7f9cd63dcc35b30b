"""A worker's delivery, and the server's answer to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mpi_dcasgd.errors import ProtocolError
from mpi_dcasgd.learning.learner import Gradient
from mpi_dcasgd.server.message import Kind, Message
from mpi_dcasgd.server.records import UpdateRecord
from mpi_dcasgd.server.slot import Slot
from mpi_dcasgd.wording import counted


class Push(NamedTuple):
    """One delivered gradient.

    Attributes:
        version: Version of the weights that the gradient was computed at.
        ticket: Minibatch that the gradient is the mean of.
        samples: Samples in the minibatch.
        loss: Mean loss over the minibatch.
        grad_norm: Euclidean norm of the gradient.
        vector: ``[gradient | statistics]``, shape (size,).
        stats_finite: Whether the statistics are finite; None if the server has to check.
    """

    version: int
    ticket: int
    samples: int
    loss: float
    grad_norm: float
    vector: Tensor
    stats_finite: bool | None = None

    @classmethod
    def found(cls, version: int, gradient: Gradient, vector: Tensor) -> Push:
        """Make the push of a gradient that was computed at the weights of ``version``."""
        ticket, samples, loss, norm, stats_finite = gradient
        return cls(version, ticket, samples, loss, norm, vector, stats_finite)

    @classmethod
    def of(cls, message: Message, *, whole: bool = True) -> Push:
        """Read a push from the message that carried it.

        Args:
            message: The message.
            whole: Whether all of it has come; else its vector is filled in chunk by chunk.

        Raises:
            ProtocolError: The message is not a push.
        """
        kind, version, ticket, samples, loss, norm = message.read_push()
        if kind is not Kind.PUSH:
            raise ProtocolError(f"expected a push, got {kind.name}")
        vector = message.read_gradient(norm) if whole else message.vector
        return cls(version, ticket, samples, loss, norm, vector, message.stats_finite)

    def check(
        self,
        worker: int,
        slot: Slot,
        held: Sequence[int],
        samples_of: Callable[[int], int],
        size: int,
    ) -> None:
        """Refuse a push that is not what its worker was given.

        Args:
            worker: The worker.
            slot: What the server knows of it.
            held: Tickets that it was granted.
            samples_of: Number of samples of a ticket.
            size: Elements of a vector.

        Raises:
            ProtocolError: It names the worker and what differs.
        """
        if slot.status != "working" or self.version != slot.version:
            raise ProtocolError(
                f"worker {worker} ({slot.status}) pushed version {self.version}, "
                f"but pulled {slot.version}"
            )
        if self.ticket not in held:
            raise ProtocolError(
                f"worker {worker} delivered ticket {self.ticket}, but holds {list(held) or 'none'}"
            )
        if self.samples != samples_of(self.ticket):
            raise ProtocolError(
                f"worker {worker} pushed {counted(self.samples, 'sample')} of ticket "
                f"{self.ticket}, which has {samples_of(self.ticket)}"
            )
        if self.vector.numel() != size:
            raise ProtocolError(
                f"worker {worker} pushed a vector of {self.vector.numel()} elements, "
                f"but was sent one of {size}"
            )

    def is_known_finite(self, num_params: int) -> bool:
        """Return whether ``is_finite`` follows from the header alone; no vector is read."""
        known = bool(self.stats_finite) or self.vector.numel() == num_params
        return known and math.isfinite(self.grad_norm)

    def is_finite(self, num_params: int) -> bool:
        """Tell whether gradient and statistics are free of NaN and infinity.

        Args:
            num_params: Elements of the gradient; those behind it are statistics.
        """
        # The worker has read its whole gradient to take the norm; reading it again here would
        # cost the server a pass over memory. The few statistics are not part of the norm.
        if not math.isfinite(self.grad_norm):
            return False
        if self.stats_finite is not None:
            return self.stats_finite
        no_stats = self.vector.numel() == num_params
        return no_stats or bool(torch.isfinite(self.vector[num_params:]).all())


class Answer(NamedTuple):
    """Result of a push: its record, and the workers whose replies can be sent now."""

    record: UpdateRecord
    ready: list[int]
