"""The learning rate as a function of samples applied.

Samples are the one clock that sequential, synchronous and asynchronous runs share: an update of
SSGD with W workers takes W minibatches, an update of ASGD one.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.settings import Positive


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScheduleSettings:
    """The ``schedule:`` section of a job: the change of the learning rate over a run."""

    name: Annotated[
        Literal["constant", "step", "cosine"], Field(description="shape after the warm-up")
    ] = "constant"
    milestones: Annotated[
        tuple[Positive, ...],
        Field(strict=False, description="step: epochs after which the rate drops"),
    ] = ()
    factor: Annotated[Positive, Field(description="step: what each drop multiplies by")] = 0.1
    final: Annotated[
        float, Field(ge=0, le=1, description="cosine: last rate as a fraction of the first")
    ] = 0.0
    warmup_epochs: Annotated[
        float,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="linear ramp at the start (Goyal et al. 2017); 0 for none",
        ),
    ] = 0.0
    warmup_from: Annotated[
        float, Field(ge=0, le=1, description="where the ramp starts, as a fraction of the rate")
    ] = 0.1


class Schedule:
    """Learning rate by samples applied.

    Args:
        settings: The shape.
        lr: The rate that the shape multiplies, already scaled for the number of workers.
        num_samples: Samples in an epoch.
        epochs: Length of the run, for ``cosine``.
    """

    def __init__(
        self, settings: ScheduleSettings, lr: float, num_samples: int, epochs: int
    ) -> None:
        self.settings = settings
        self.lr = lr
        self.num_samples = num_samples
        self.epochs = epochs

    def __call__(self, samples: int) -> float:
        """The rate for the next update, ``samples`` having been applied."""
        epoch = samples / self.num_samples
        return self.lr * self._warmup(epoch) * self._shape(epoch)

    def _warmup(self, epoch: float) -> float:
        ramp = self.settings.warmup_epochs
        if epoch >= ramp:
            return 1.0
        start = self.settings.warmup_from
        return start + (1.0 - start) * epoch / ramp

    def _shape(self, epoch: float) -> float:
        settings = self.settings
        if settings.name == "step":
            return float(settings.factor ** sum(epoch >= m for m in settings.milestones))
        if settings.name == "cosine":
            ramp = settings.warmup_epochs
            done = max(0.0, epoch - ramp) / max(self.epochs - ramp, 1e-9)
            wave = 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
            return settings.final + (1.0 - settings.final) * wave
        return 1.0
