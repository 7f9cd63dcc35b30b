"""Bounding a gradient before anything else is done with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.rules.part import Facts, Lanes, Part, Role
from mpi_dcasgd.rules.references import PASCANU_2013, Reference

if TYPE_CHECKING:  # a job is checked without loading PyTorch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoClipping(Part):
    """Take the gradient as it was pushed."""

    role: ClassVar[Role] = "clipping"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NormClipping(Part):
    """Shorten a gradient that is longer than ``max_norm`` to that length.

    ::

        g <- g * min(1, max_norm / |g|)            |g| the Euclidean norm over all parameters

    It acts first, so that compensation squares the clipped gradient and momentum remembers it;
    weight decay and the compensation itself are not clipped. The worker measured the norm, so the
    server reads nothing twice. Where gradients are collected, the norm is that of their mean.
    Unlike ``torch.nn.utils.clip_grad_norm_`` nothing is added to the norm, and a gradient within
    the bound keeps its bits.

    Args:
        max_norm: > 0, in units of the gradient.

    Source: Pascanu et al., "On the difficulty of training recurrent neural networks", ICML 2013,
    Algorithm 1.
    """

    role: ClassVar[Role] = "clipping"

    max_norm: Annotated[
        float,
        Field(gt=0, allow_inf_nan=False, description="longest gradient that is left as it is"),
    ] = 1.0

    def references(self) -> tuple[Reference, ...]:
        return (PASCANU_2013,)

    def scalars(self, facts: Facts) -> tuple[float, ...]:
        return (self.max_norm / max(facts.grad_norm, self.max_norm),)

    def update(
        self, lanes: Lanes, state: tuple[Tensor, ...], scalars: tuple[float | Tensor, ...]
    ) -> tuple[Lanes, tuple[Tensor, ...]]:
        (scale,) = scalars
        grad = lanes.grad * scale
        return lanes._replace(grad=grad, direction=grad), state
