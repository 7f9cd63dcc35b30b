"""Weight decay at the server, with the weights of now rather than the stale ones."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.rules.part import Facts, Lanes, Part, Role


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WeightDecay(Part):
    """``direction += rate * params``; the gradient that compensation squares stays as it was.

    Decay is known exactly at the server, so nothing about it needs compensating. Putting it
    inside the gradient would square it too (MXNet does so since its pull request 17400).

    Args:
        rate: L2 coefficient >= 0, applied to every parameter, also biases and BatchNorm's.
    """

    role: ClassVar[Role] = "weight_decay"

    rate: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    def scalars(self, facts: Facts) -> tuple[float, ...]:
        return (self.rate,)

    def update(
        self, lanes: Lanes, state: tuple[Tensor, ...], scalars: tuple[float | Tensor, ...]
    ) -> tuple[Lanes, tuple[Tensor, ...]]:
        (rate,) = scalars
        return lanes._replace(direction=lanes.direction + lanes.params * rate), state
