"""A learner whose steps are held up on purpose, in a real run."""

from __future__ import annotations

from collections.abc import Iterable

from mpi_dcasgd.drivers.simulation.injection import Injection
from mpi_dcasgd.learning.learner import Batch, Gradient, Learner


class SlowedLearner(Learner):
    """A learner whose gradients take as long as an injection says.

    Args:
        learner: What is computed.
        injection: How long it takes.
    """

    def __init__(self, learner: Learner, injection: Injection) -> None:
        super().__init__(learner.flat, learner.subject, learner.plan, learner.settings)
        self._learner = learner
        self._injection = injection

    def expect(self, tickets: Iterable[int]) -> None:
        self._learner.expect(tickets)

    def load(self, ticket: int) -> Batch:
        return self._learner.load(ticket)

    def gradient(self, batch: Batch) -> Gradient:
        began_s = self._injection.now()
        found = self._learner.gradient(batch)
        self._injection.hold(began_s)
        return found

    def compute(self, batch: Batch) -> float:
        began_s = self._injection.now()
        loss = self._learner.compute(batch)
        self._injection.hold(began_s)
        return loss
