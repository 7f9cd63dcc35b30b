"""Logistic regression with an l2 penalty, on made-up data or a file of LIBSVM's."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mpi_dcasgd.learning.settings import Count
from mpi_dcasgd.learning.tasks.objective import Measured, Objective

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mpi_dcasgd.learning.tasks.logistic_problem import Problem


class Logistic(Objective):
    """Logistic regression f(x) = mean of log(1 + exp(-y a'x)) + l2 |x|^2 / 2, with y = 1 or -1.

    Training begins at 0, where f is log 2. The minimum is computed by Newton's method before
    training begins. The greatest curvature is at most l2 plus a quarter of that of A'A/n.

    A file in LIBSVM's format must have two labels, the greater of which becomes 1. In made-up data
    a is normal with a norm of about 1, and y is drawn from a logistic model whose weights are
    normal with standard deviation 5.

    Source: C.-C. Chang and C.-J. Lin, "LIBSVM: A Library for Support Vector Machines", ACM TIST
    2011, for the format and the data sets in it.
    """

    def __init__(
        self,
        file: Annotated[
            str | None,
            Field(
                description="a file in LIBSVM's format, which may be compressed (.gz, .bz2); ~ and "
                "$VARIABLES are expanded; "
                "null: made-up data"
            ),
        ] = None,
        l2: Annotated[
            float | None,
            Field(
                gt=0,
                allow_inf_nan=False,
                description="factor of half the squared norm in the objective; null: 1/n",
            ),
        ] = None,
        samples: Annotated[Count, Field(description="samples of made-up data")] = 2000,
        dimension: Annotated[Count, Field(description="features of made-up data")] = 50,
        data_seed: Annotated[int, Field(ge=0, description="seed of made-up data")] = 42,
    ) -> None:
        self.file = file
        self.l2 = l2
        self._made_up = (samples, dimension, data_seed)

    def start(self) -> Tensor:
        import torch

        return torch.zeros(self._problem.rows.shape[1])

    def train_data(self) -> tuple[Tensor, Tensor]:
        import torch

        return torch.from_numpy(self._problem.rows), torch.from_numpy(self._problem.labels)

    def test_data(self) -> tuple[Tensor, Tensor]:
        rows, labels = self.train_data()
        return rows[:1], labels[:1]

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        from torch.nn.functional import softplus

        rows, labels = batch
        x: Tensor = model()
        return softplus(-labels * (rows @ x)).mean() + self._problem.l2 / 2 * x.square().sum()

    def measure(self, x: Tensor) -> Measured:
        from torch.nn.functional import softplus

        l2, beyond = self._problem.l2, x - self._optimum
        scores = self._signed @ x
        wrong = (-scores).sigmoid()
        gradient = l2 * x - self._signed.T @ wrong / len(scores)
        return Measured(
            gap=_divergence(scores, self._scores_at_optimum) + l2 / 2 * beyond.square().sum(),
            grad_sq=gradient.square().sum(),
            value=softplus(-scores).mean() + l2 / 2 * x.square().sum(),
        )

    @cached_property
    def _problem(self) -> Problem:
        from mpi_dcasgd.learning.tasks import logistic_problem

        if self.file is None:
            return logistic_problem.made_up(*self._made_up, self.l2)
        return logistic_problem.read(self.file, self.l2)

    @cached_property
    def _optimum(self) -> Tensor:
        import torch

        return torch.from_numpy(self._problem.optimum).to(self.device)

    @cached_property
    def _signed(self) -> Tensor:
        """The rows times their labels, in float64."""
        rows, labels = self.train_data()
        return (rows * labels[:, None]).to(self.device).double()

    @cached_property
    def _scores_at_optimum(self) -> Tensor:
        return self._signed @ self._optimum


def _divergence(scores: Tensor, best: Tensor) -> Tensor:
    """The mean Bregman divergence of the loss from the scores of the optimum.

    Together with that of the penalty it is f(x) - f(x*), since the gradient at x* is zero.
    """
    from torch import log1p, where
    from torch.nn.functional import softplus

    away = scores - best
    wrong = (-best).sigmoid()
    near = log1p(wrong * (-away).expm1())
    far = softplus(-scores) - softplus(-best)
    return (where(away.abs() < 1, near, far) + wrong * away).mean()
