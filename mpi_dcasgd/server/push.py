"""A worker's delivery, and the server's answer to it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mpi_dcasgd.errors import ProtocolError
from mpi_dcasgd.learning.learner import Gradient
from mpi_dcasgd.server.message import Kind, Message
from mpi_dcasgd.server.records import UpdateRecord


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
    def of(cls, message: Message) -> Push:
        """Read a push from the message that carried it.

        Raises:
            ProtocolError: The message is not a push.
        """
        if message.kind is not Kind.PUSH:
            raise ProtocolError(f"expected a push, got {message.kind.name}")
        return cls(
            message.version,
            message.ticket,
            message.samples,
            message.loss,
            message.grad_norm,
            message.vector,
        )

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
