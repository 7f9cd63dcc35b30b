"""A task whose steps are held up on purpose, in a real run."""

from __future__ import annotations

from mpi_dcasgd.drivers.simulation.injection import Injection
from mpi_dcasgd.learning.task import Batch, Gradient, Task


class SlowedTask(Task):
    """A task whose gradients take as long as an injection says.

    Args:
        task: What is computed.
        injection: How long it takes.
    """

    def __init__(self, task: Task, injection: Injection) -> None:
        super().__init__(task.flat, task.dataset, task.plan)
        self._task = task
        self._injection = injection

    def load(self, ticket: int) -> Batch:
        return self._task.load(ticket)

    def gradient(self, batch: Batch) -> Gradient:
        began_s = self._injection.now()
        found = self._task.gradient(batch)
        self._injection.hold(began_s)
        return found

    def compute(self, batch: Batch) -> float:
        began_s = self._injection.now()
        loss = self._task.compute(batch)
        self._injection.hold(began_s)
        return loss
