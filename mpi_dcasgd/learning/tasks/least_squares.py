"""Least squares on made-up data, the experiment of the delay-adaptive step size."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field

from mpi_dcasgd.learning.settings import Count
from mpi_dcasgd.learning.tasks.objective import Measured, Objective

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn


class LeastSquares(Objective):
    """Least squares f(x) = |Ax - y|^2 / (2n) on made-up data, as Mishchenko et al. have it.

    A is uniform in [0, 1] divided by sqrt(d), y = Ax' + noise with a standard normal x', and
    training begins at 0. The greatest curvature is 0.25, the least 1.3e-4.
    With the default settings A and y are those of the published program. Minibatches are taken from
    the n rows in a new order every epoch; the program draws each one from all rows.

    Source: K. Mishchenko, F. Bach, M. Even and B. Woodworth, "Asynchronous SGD Beats Minibatch SGD
    Under Arbitrary Delays", NeurIPS 2022, and its program, github.com/konstmish/asynchronous_sgd.
    """

    def __init__(
        self,
        samples: Annotated[Count, Field(description="rows of the matrix")] = 10_000,
        dimension: Annotated[Count, Field(description="numbers that are looked for")] = 400,
        noise: Annotated[
            float,
            Field(
                ge=0,
                allow_inf_nan=False,
                description="standard deviation of what is added to each target",
            ),
        ] = 1e-5,
        data_seed: Annotated[
            int, Field(ge=0, description="seed of the data, which do not depend on the job's seed")
        ] = 42,
    ) -> None:
        self._settings = (samples, dimension, noise, data_seed)
        self.dimension = dimension

    def start(self) -> Tensor:
        import torch

        return torch.zeros(self.dimension)

    def train_data(self) -> tuple[Tensor, Tensor]:
        import torch

        problem = _problem(*self._settings)
        return torch.from_numpy(problem.rows), torch.from_numpy(problem.targets)

    def test_data(self) -> tuple[Tensor, Tensor]:
        rows, targets = self.train_data()
        return rows[:1], targets[:1]

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        rows, targets = batch
        away: Tensor = rows @ model() - targets
        return away.square().mean() / 2

    def measure(self, x: Tensor) -> Measured:
        beyond = x - self._optimum
        gradient = self._curvature @ beyond
        gap = beyond.dot(gradient) / 2
        return Measured(gap, gradient.square().sum(), gap + _problem(*self._settings).least)

    def curvature(self) -> float:
        return _problem(*self._settings).sharpest

    @cached_property
    def _optimum(self) -> Tensor:
        import torch

        return torch.from_numpy(_problem(*self._settings).optimum).to(self.device)

    @cached_property
    def _curvature(self) -> Tensor:
        import torch

        return torch.from_numpy(_problem(*self._settings).curvature).to(self.device)


class _Problem(NamedTuple):
    """The data in float32, and what follows from them, in float64."""

    rows: NDArray[np.float32]
    targets: NDArray[np.float32]
    curvature: NDArray[np.float64]
    optimum: NDArray[np.float64]
    least: float
    sharpest: float


@lru_cache(maxsize=1)
def _problem(samples: int, dimension: int, noise: float, data_seed: int) -> _Problem:
    import numpy as np

    rng = np.random.default_rng(data_seed)
    for _ in range(5):
        # The published program draws the seeds of its five runs before the data.
        rng.choice(424_242, size=1, replace=False)
    rows = (rng.uniform(size=(samples, dimension)) / np.sqrt(dimension)).astype(np.float32)
    exact = rows.astype(np.float64)
    targets = exact @ rng.normal(size=dimension) + noise * rng.normal(size=samples)
    single = targets.astype(np.float32)
    # The optimum is that of the numbers which are trained on.
    targets = single.astype(np.float64)
    curvature = exact.T @ exact / samples
    # Of the normal equations, whose condition number is 2,000: far quicker than of the rows.
    optimum = np.linalg.lstsq(curvature, exact.T @ targets / samples, rcond=None)[0]
    least = float(np.square(exact @ optimum - targets).mean() / 2)
    return _Problem(rows, single, curvature, optimum, least, _largest_eigenvalue(curvature))


def _largest_eigenvalue(matrix: NDArray[np.float64]) -> float:
    """Find the largest eigenvalue by powers of the matrix, which take few since no entry is < 0."""
    import numpy as np

    vector, value = np.ones(len(matrix)), 0.0
    for _ in range(1000):
        image = matrix @ vector
        before, value = value, float(np.linalg.norm(image))
        vector = image / value
        if abs(value - before) <= 1e-13 * value:
            break
    return value
