"""Weight decay at the server, with the weights of now rather than the stale ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.rules.part import Facts, Lanes, Part, Role
from mpi_dcasgd.rules.references import GILADI_2020, LOSHCHILOV_2019, Reference

if TYPE_CHECKING:  # a job is checked without loading PyTorch
    from torch import Tensor


DecayOn = Literal["all", "conv-and-linear"]
"""Parameters that decay: all, or the weights of convolutions and linear layers only."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WeightDecay(Part):
    """L2 decay at one of three places of the chain.

    ::

        outside     direction += rate * params          before compensation and momentum
        inside      g += rate * params, direction = g   so that compensation squares it as well
        decoupled   direction += rate * params          after momentum, before the step size

    ``outside`` is the default: decay is known exactly at the server, so nothing about it needs
    compensating. ``inside`` is what MXNet's DCASGD does since its pull request 17400, kept for
    comparison; with no compensation the two are the same. ``decoupled`` keeps decay out of the
    momentum buffers and, with Adam, out of the division by the root mean square: with
    ``momentum: adam`` it is AdamW, with heavy-ball it is SGDW, without momentum it is ``outside``.
    Like all else in the direction it is multiplied by the learning rate *and* by the step size
    part's factor.

    Where workers are sent a look-ahead point (``dana``), ``params`` are the server's weights, not
    that point.

    Args:
        rate: L2 coefficient >= 0; parameter groups may have a factor of it.
        place: ``outside``, ``inside`` or ``decoupled``: before compensation, inside of what it
            squares, or after momentum.
        on: ``all`` parameters, also biases and BatchNorm's, or ``conv-and-linear``: the weights
            of convolutions and linear layers only. The vector is laid out accordingly; the
            arithmetic here is the same.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019,
    arXiv:1711.05101, for ``decoupled``; Giladi et al., ICLR 2020, arXiv:1909.12340, whose code has
    ``conv-and-linear``.
    """

    role: ClassVar[Role] = "weight_decay"

    rate: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="L2 coefficient; 0 for none")
    ] = 0.0
    place: Annotated[
        Literal["outside", "inside", "decoupled"],
        Field(description="outside or inside the gradient that is squared, or after momentum"),
    ] = "outside"
    on: Annotated[
        DecayOn, Field(description="all parameters, or weights of convolutions and linear layers")
    ] = "all"

    def references(self) -> tuple[Reference, ...]:
        if not self.rate:
            return ()
        decoupled = (LOSHCHILOV_2019,) if self.place == "decoupled" else ()
        return decoupled if self.on == "all" else (*decoupled, GILADI_2020)

    def scalars(self, facts: Facts) -> tuple[float, ...]:
        return (self.rate,)

    def update(
        self, lanes: Lanes, state: tuple[Tensor, ...], scalars: tuple[float | Tensor, ...]
    ) -> tuple[Lanes, tuple[Tensor, ...]]:
        (rate,) = scalars
        decay = lanes.params * rate
        if self.place == "inside":
            lanes = lanes._replace(grad=lanes.grad + decay)
        return lanes._replace(direction=lanes.direction + decay), state
