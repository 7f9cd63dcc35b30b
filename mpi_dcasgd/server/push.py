"""What a worker delivers, and what the server answers."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from mpi_dcasgd.errors import ProtocolError
from mpi_dcasgd.learning.task import Gradient
from mpi_dcasgd.server.message import Kind, Message
from mpi_dcasgd.server.records import UpdateRecord


class Push(NamedTuple):
    """One delivered gradient; ``vector`` is ``[gradient | statistics]``, shape (size,).

    Attributes:
        stats_finite: Whether the statistics are finite; None where the server has to look.
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
        """What was found for a ticket at the weights of ``version``."""
        ticket, samples, loss, norm, stats_finite = gradient
        return cls(version, ticket, samples, loss, norm, vector, stats_finite)

    @classmethod
    def of(cls, message: Message) -> Push:
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


class Answer(NamedTuple):
    """What a push led to: its record, and the workers whose replies can be sent now."""

    record: UpdateRecord
    ready: list[int]
