"""Gap-aware momentum: gradients count for less, the further the weights have moved since."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.rules.momentum import Coefficient
from mpi_dcasgd.rules.part import Facts, Lanes, Part, Role, StateVector
from mpi_dcasgd.rules.references import BARKAI_2020, Reference

if TYPE_CHECKING:  # a job is checked without loading PyTorch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GapAware(Part):
    """Divide the direction by the gap, measured in typical steps, then heavy-ball momentum.

    ::

        gap        = 1 + |params - snapshot| / (lr_max * (sqrt(A / (1 - decay^n)) + eps))
        v         <- momentum * v + direction / gap;     direction = v
        A         <- decay * A + (1 - decay) * v^2       after it was used;  A_0 = 0

    all of it element by element; n is the number of updates so far and lr_max the largest
    learning rate so far. ``lr_max * sqrt(A)`` is the root mean square of the steps taken, so the
    gap is 1 for a fresh gradient and about 1 + tau for weights that moved tau typical steps one
    way. Measured against the staleness, parameters that moved little are not penalised.

    The direction that is divided has weight decay in it (places ``outside`` and ``inside``): decay
    must be penalised like the gradient, or it would win over it. The gradient is divided rather
    than the rate, so that the buffer's memory of other pushes is not. The typical step is that of
    the velocity, which is why this is a momentum part and not a step size: with ``momentum: 0`` it
    is the gap-aware rule for plain ASGD.

    ``lr_max`` is of the schedule, so a step size for staleness, whose steps are shorter, is refused
    beside this part.

    One velocity and one A at the server. Before the first update A is 0 and nothing has moved:
    the gap is 1. The same holds as long as every rate so far was 0.

    Args:
        momentum: In [0, 1).
        decay: G in [0, 1), the memory of A.
        eps: > 0, in units of the gradient.

    Source: S. Barkai, I. Hakimi, A. Schuster, "Gap-Aware Mitigation of Gradient Staleness",
    ICLR 2020, arXiv:1909.10802; the estimate of the step (A, its bias correction, lr_max) follows
    the authors' group's public implementation.
    """

    role: ClassVar[Role] = "momentum"
    reads_snapshot: ClassVar[bool] = True

    momentum: Coefficient = 0.9
    decay: Annotated[
        float, Field(ge=0, lt=1, description="memory of the mean square of the velocity")
    ] = 0.999
    eps: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="added to the root mean square")
    ] = 1e-8

    def references(self) -> tuple[Reference, ...]:
        return (BARKAI_2020,)

    def vectors(self) -> tuple[StateVector, ...]:
        return (StateVector("velocity"), StateVector("mean_square"))

    def scalars(self, facts: Facts) -> tuple[float, ...]:
        unbias = 1.0 / math.sqrt(1.0 - self.decay**facts.version) if facts.version else 1.0
        per_rate = 1.0 / facts.lr_max if facts.lr_max else 0.0
        return (self.momentum, self.decay, 1.0 - self.decay, unbias, per_rate, self.eps)

    def update(
        self, lanes: Lanes, state: tuple[Tensor, ...], scalars: tuple[float | Tensor, ...]
    ) -> tuple[Lanes, tuple[Tensor, ...]]:
        momentum, decay, intake, unbias, per_rate, eps = scalars
        typical = state[1].sqrt() * unbias + eps
        gap = (lanes.params - lanes.snapshot).abs() * per_rate / typical + 1.0
        velocity = state[0] * momentum + lanes.direction / gap
        mean_square = state[1] * decay + velocity * velocity * intake
        return lanes._replace(direction=velocity), (velocity, mean_square)
