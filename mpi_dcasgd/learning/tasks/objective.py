"""Base of the tasks that minimise a function of one vector whose minimum is known."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

from mpi_dcasgd.learning.task import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mpi_dcasgd.learning.task import MetricSums


class Measured(NamedTuple):
    """The whole objective at a point, without noise, in float64.

    Attributes:
        gap: f(x) - f(x*), found without subtracting one from the other: of two numbers that agree
            to seven digits the difference has none.
        grad_sq: Squared Euclidean norm of the gradient.
        value: f(x).
    """

    gap: Tensor
    grad_sq: Tensor
    value: Tensor


class Objective(Task):
    """A function of one vector, minimised from stochastic gradients.

    Its metrics are those of the whole function, whatever the test data: ``f_gap`` is f(x) - f(x*),
    ``grad_sq`` the squared norm of the gradient and ``loss`` f(x) itself. The point is float32, as
    all weights are, so that ``f_gap`` falls no further than to about 1e-14 times the curvature.
    """

    primary_metric = "f_gap"
    evaluation_draws = False
    capturable = True

    @abstractmethod
    def start(self) -> Tensor:
        """Return the point where training begins, shape (d,)."""

    @abstractmethod
    def measure(self, x: Tensor) -> Measured:
        """Measure the whole objective.

        Args:
            x: The point in float64, shape (d,), on ``device``.
        """

    def model(self) -> nn.Module:
        from mpi_dcasgd.learning.tasks.point import Point

        return Point(self.start())

    def metrics(self, model: nn.Module, batch: Any) -> MetricSums:
        found = self.measure(model().detach().double())
        return {"f_gap": (found.gap, 1), "grad_sq": (found.grad_sq, 1), "loss": (found.value, 1)}
