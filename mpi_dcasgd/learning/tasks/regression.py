"""Regression: numbers to predict for each sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.data.dataset import Split
from mpi_dcasgd.learning.data.source import DataSource
from mpi_dcasgd.learning.models.base import ModelSource
from mpi_dcasgd.learning.tasks.sections import SectionTask, first_sample

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from mpi_dcasgd.learning.task import MetricSums


class Regression(SectionTask):
    """Regression of one number or several, of any data set whose targets are floats.

    The metrics are the mean squared error ``mse``, its root ``rmse``, and the mean absolute error
    ``mae``, over samples and outputs, in the units of the targets.

    Args:
        model: The section of that name.
        data: The section of that name.

    Source: P. J. Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical
    Statistics 1964.
    """

    primary_metric = "mse"
    evaluation_draws = False
    capturable = True

    def __init__(
        self,
        model: ModelSource,
        data: DataSource,
        loss: Annotated[
            Literal["squared", "absolute", "huber"],
            Field(
                description="error that is trained on; huber: half the squared error up to "
                "huber_delta, beyond it in proportion to the error"
            ),
        ] = "squared",
        huber_delta: Annotated[
            float,
            Field(
                gt=0,
                allow_inf_nan=False,
                description="error from which huber's loss grows in proportion to it",
            ),
        ] = 1.0,
    ) -> None:
        super().__init__(model, data)
        self._kind = loss
        self._delta = huber_delta

    def train_data(self) -> Split:
        _, targets = first_sample(self.dataset.train)
        if not targets.is_floating_point():
            raise ConfigError(
                "task",
                [
                    f"name: regression needs targets that are floats; those of {self.dataset.name} "
                    "are whole numbers: choose task.name=classification, or other data"
                ],
            )
        return super().train_data()

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return self._loss(*_answers(model, batch))

    def metrics(self, model: nn.Module, batch: Any) -> MetricSums:
        answers, targets = _answers(model, batch)
        count = targets.numel()
        away = answers - targets
        return {
            "mse": (away.square().sum(), count),
            "mae": (away.abs().sum(), count),
            "loss": (self._loss(answers, targets) * count, count),
        }

    def derived(self, means: Mapping[str, float]) -> dict[str, float]:
        return {"rmse": means["mse"] ** 0.5}

    def _loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        from torch.nn import functional

        if self._kind == "squared":
            return functional.mse_loss(answers, targets)
        if self._kind == "absolute":
            return functional.l1_loss(answers, targets)
        return functional.huber_loss(answers, targets, delta=self._delta)


def _answers(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    """Outputs in the shape of the targets: (n,) and (n, 1) must not be broadcast."""
    inputs, targets = batch
    answers = model(inputs)
    if answers.numel() != targets.numel():
        raise ConfigError(
            "task",
            [
                f"name: for targets of shape {tuple(targets.shape)} the model returned "
                f"{tuple(answers.shape)}; regression needs a number for each"
            ],
        )
    return answers.reshape(targets.shape), targets
