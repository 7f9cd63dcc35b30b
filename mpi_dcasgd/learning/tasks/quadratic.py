"""The quadratic that is hard for first-order methods, with noise added to its gradient."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mpi_dcasgd.learning.settings import Count
from mpi_dcasgd.learning.tasks.objective import Measured, Objective

if TYPE_CHECKING:
    from torch import Tensor, nn


class Quadratic(Objective):
    """The worst-case quadratic f(x) = x'Ax/2 - b'x with noise in its gradient, as Ringmaster's.

    A is tridiagonal with -1/4, 1/2, -1/4, b is -e1/4, and training begins at sqrt(d) e1. The
    greatest curvature is just below 1. There are no data: a gradient is Ax - b plus normal noise
    that follows from the ticket, and that of a minibatch of n samples has the mean of n such
    noises. The published program adds one random number to all coordinates, where the paper's text
    has one for each; the expected squared error is the same.

    Source: A. Maranjyan, A. Tyurin and P. Richtárik, "Ringmaster ASGD", ICML 2025, and the
    program of its experiments; the function is Nesterov's.
    """

    def __init__(
        self,
        dimension: Annotated[Count, Field(description="numbers that are looked for")] = 1729,
        noise: Annotated[
            float,
            Field(
                ge=0,
                allow_inf_nan=False,
                description="standard deviation of a sample's gradient in each coordinate",
            ),
        ] = 0.01,
        noise_kind: Annotated[
            Literal["scalar", "independent"],
            Field(
                description="scalar: one random number for all coordinates, as in the published "
                "program; independent: one for each"
            ),
        ] = "scalar",
        samples: Annotated[
            Count, Field(description="samples of an epoch; there are no data, only noise")
        ] = 1000,
    ) -> None:
        self.dimension = dimension
        self.noise = noise
        self.noise_kind = noise_kind
        self.samples = samples

    def start(self) -> Tensor:
        import torch

        start = torch.zeros(self.dimension)
        start[0] = math.sqrt(self.dimension)
        return start

    def train_data(self) -> Tensor:
        import torch

        return torch.arange(self.samples)

    def test_data(self) -> Tensor:
        import torch

        return torch.zeros(1, dtype=torch.int64)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        x: Tensor = model()
        exact = _energy(x) + x[0] / 4
        if not self.noise:
            return exact
        # What is added is linear in x, so it adds to the gradient and to no curvature.
        return exact + (self._drawn(x, len(batch)) * x).sum()

    def curvature(self) -> float:
        return (1 + math.cos(math.pi / (self.dimension + 1))) / 2

    def measure(self, x: Tensor) -> Measured:
        beyond = x - _optimum(x)
        return Measured(
            gap=_energy(beyond),
            grad_sq=_product(beyond).square().sum(),
            value=_energy(x) + x[0] / 4,
        )

    def _drawn(self, x: Tensor, samples: int) -> Tensor:
        """The mean noise of some samples, drawn at once."""
        import torch

        count = 1 if self.noise_kind == "scalar" else self.dimension
        return torch.randn(count, device=x.device) * (self.noise / math.sqrt(samples))


def _energy(x: Tensor) -> Tensor:
    """x'Ax/2, as a sum of squares."""
    return (x[0].square() + (x[1:] - x[:-1]).square().sum() + x[-1].square()) / 8


def _product(x: Tensor) -> Tensor:
    """Ax."""
    from torch.nn.functional import pad

    wide = pad(x, (1, 1))
    return (2 * x - wide[:-2] - wide[2:]) / 4


def _optimum(x: Tensor) -> Tensor:
    """The solution of Ax = b: x_i = i / (d + 1) - 1, for i = 1 .. d."""
    import torch

    d = len(x)
    return torch.arange(1, d + 1, dtype=x.dtype, device=x.device) / (d + 1) - 1
