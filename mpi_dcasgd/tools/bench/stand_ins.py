"""Stand-ins for what costs time beside messages and updates: model, learner, conductor."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from torch import Tensor

from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.drivers.divided_link import DividedLink
from mpi_dcasgd.drivers.mpi_worker import Link
from mpi_dcasgd.learning.flat import Field, FlatLayout
from mpi_dcasgd.learning.learner import Batch, Gradient, Learner
from mpi_dcasgd.server.records import UpdateRecord


def layout_of(size: int) -> FlatLayout:
    """Layout of one parameter with so many elements."""
    return FlatLayout((Field("vector", (size,), 0, size),), (), size, 0)


class Vectors:
    """Stand-in for a flat model: a place where weights arrive and gradients leave."""

    def __init__(self, link: Link | DividedLink) -> None:
        self.layout = layout_of(link.grad.numel())
        self.weights: Tensor = link.weights
        self.grad: Tensor = link.grad


class Instant(Learner):
    """A learner without a model, whose gradient is always the same."""

    def __init__(self, link: Link | DividedLink) -> None:
        self.flat = Vectors(link)  # type: ignore[assignment]
        self._lookahead = None

    def load(self, ticket: int) -> Batch:
        return Batch(ticket, 1, ())

    def gradient(self, batch: Batch) -> Gradient:
        return Gradient(batch.ticket, 1, 0.1, 1.0, stats_finite=True)


class Nobody(Conductor):
    """Is told, and does nothing."""

    def __init__(self) -> None:
        pass

    def after(self, record: UpdateRecord) -> None:
        pass

    def poll(self) -> None:
        pass

    def fault(self, text: str, missing: Sequence[str]) -> None:
        print(text, file=sys.stderr, flush=True)
