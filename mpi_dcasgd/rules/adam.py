"""Adam at the server."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.rules.part import Facts, Lanes, Part, Role, StateVector
from mpi_dcasgd.rules.references import KINGMA_2015, Reference

if TYPE_CHECKING:  # a job is checked without loading PyTorch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Adam(Part):
    """Adam; with ``weight_decay: {place: decoupled}`` it is AdamW.

    ::

        m <- beta1 * m + (1 - beta1) * direction
        v <- beta2 * v + (1 - beta2) * direction^2
        direction = (m / (1 - beta1^n)) / (sqrt(v / (1 - beta2^n)) + eps),   n = version + 1

    One pair of buffers at the server, updated by every push; n counts the server's updates, so
    gradients that were dropped or held do not age the correction. eps is outside the root, unlike
    that of delay compensation. Delay compensation before it changes the direction that both
    averages see. Equal to ``torch.optim.Adam`` and ``AdamW`` with one worker. Adam's step
    does not shrink with the gradient, so a stale direction keeps its full length: lower the
    learning rate with the number of workers, or use a step size part.

    Memory: 2 vectors.

    Args:
        beta1: In [0, 1).
        beta2: In [0, 1).
        eps: > 0, in units of the gradient.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015,
    arXiv:1412.6980, Algorithm 1.
    """

    role: ClassVar[Role] = "momentum"

    beta1: Annotated[float, Field(ge=0, lt=1, description="memory of the direction")] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1, description="memory of its square")] = 0.999
    eps: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="added to the root mean square")
    ] = 1e-8

    def references(self) -> tuple[Reference, ...]:
        return (KINGMA_2015,)

    def vectors(self) -> tuple[StateVector, ...]:
        return (StateVector("mean"), StateVector("mean_square"))

    def scalars(self, facts: Facts) -> tuple[float, ...]:
        updates = facts.version + 1
        return (
            self.beta1,
            1.0 - self.beta1,
            self.beta2,
            1.0 - self.beta2,
            1.0 / (1.0 - self.beta1**updates),
            1.0 / math.sqrt(1.0 - self.beta2**updates),
            self.eps,
        )

    def update(
        self, lanes: Lanes, state: tuple[Tensor, ...], scalars: tuple[float | Tensor, ...]
    ) -> tuple[Lanes, tuple[Tensor, ...]]:
        beta1, intake1, beta2, intake2, unbias1, unbias2, eps = scalars
        mean = state[0] * beta1 + lanes.direction * intake1
        mean_square = state[1] * beta2 + lanes.direction * lanes.direction * intake2
        direction = mean * unbias1 / (mean_square.sqrt() * unbias2 + eps)
        return lanes._replace(direction=direction), (mean, mean_square)
