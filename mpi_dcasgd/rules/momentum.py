"""Momentum at the server: what the direction remembers of earlier directions."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.rules.part import Facts, Lanes, Part, Role, StateVector


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoMomentum(Part):
    """Step along the direction as it is."""

    role: ClassVar[Role] = "momentum"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class HeavyBall(Part):
    """``v <- momentum * v + (1 - dampening) * direction; direction = v`` (Polyak).

    One buffer at the server, shared by all workers. Asynchrony already acts like momentum
    (Mitliagkas et al. 2016), and beyond a delay of two updates this buffer lowers the largest
    stable learning rate (Giladi et al. 2020), so 0 is the default everywhere.

    Args:
        momentum: In [0, 1).
        dampening: In [0, 1]; PyTorch's SGD has 0, Giladi et al. write ``1 - momentum`` in front
            of the gradient, which is ``dampening = momentum``.
    """

    role: ClassVar[Role] = "momentum"

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    dampening: Annotated[float, Field(ge=0, le=1)] = 0.0

    def vectors(self) -> tuple[StateVector, ...]:
        return (StateVector("velocity"),)

    def scalars(self, facts: Facts) -> tuple[float, ...]:
        return (self.momentum, 1.0 - self.dampening)

    def update(
        self, lanes: Lanes, state: tuple[Tensor, ...], scalars: tuple[float | Tensor, ...]
    ) -> tuple[Lanes, tuple[Tensor, ...]]:
        momentum, intake = scalars
        velocity = state[0] * momentum + lanes.direction * intake
        return lanes._replace(direction=velocity), (velocity,)
