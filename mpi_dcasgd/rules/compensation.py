"""Delay compensation: what the gradient would have been at the weights of now.

Source: S. Zheng et al., "Asynchronous Stochastic Gradient Descent with Delay Compensation",
ICML 2017, arXiv:1609.08326. The rule (eq. 10)::

    w <- w - eta * (g + lambda_t * g * g * (w - w_bak(m)))        all products elementwise

The diagonal of g g^T stands for the Hessian in a first-order Taylor expansion about the weights
that worker m was sent. Traps seen in public code: one backup for all workers (then w - w_bak is
only the last step), a backup that starts at zero (a wrong first correction), a backup that is the
live weights (no correction at all), and a lambda divided by its root mean square again and again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.rules.part import Facts, Lanes, Part, Role, StateVector
from mpi_dcasgd.rules.references import ZHENG_2017, Reference

if TYPE_CHECKING:  # a job is checked without loading PyTorch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoCompensation(Part):
    """Use the stale gradient as it is (ASGD)."""

    role: ClassVar[Role] = "compensation"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ConstantCompensation(Part):
    """DC-ASGD-c: ``direction += dc_lambda * g * g * (params - snapshot)``.

    ``dc_lambda = 0``, or a snapshot equal to the weights, leaves the direction unchanged. It is
    evaluated as ``g * (g * (params - snapshot))`` so that a gradient whose square overflows does
    not turn a zero drift into NaN.

    Args:
        dc_lambda: lambda_0 >= 0, units of 1/loss. The paper's CIFAR-10 value is 0.04.

    Source: Zheng et al. 2017, eq. 10 and Algorithm 2 with constant lambda.
    """

    role: ClassVar[Role] = "compensation"
    reads_snapshot: ClassVar[bool] = True

    dc_lambda: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="strength; 0 is plain ASGD")
    ] = 0.04

    def references(self) -> tuple[Reference, ...]:
        return (ZHENG_2017,)

    def scalars(self, facts: Facts) -> tuple[float, ...]:
        return (self.dc_lambda,)

    def update(
        self, lanes: Lanes, state: tuple[Tensor, ...], scalars: tuple[float | Tensor, ...]
    ) -> tuple[Lanes, tuple[Tensor, ...]]:
        (dc_lambda,) = scalars
        drift = lanes.params - lanes.snapshot
        correction = (lanes.grad * dc_lambda) * (lanes.grad * drift)
        return lanes._replace(direction=lanes.direction + correction), state


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AdaptiveCompensation(Part):
    """DC-ASGD-a: lambda_t follows the size of the gradients, element by element.

    ::

        MS        <- decay * MS + (1 - decay) * g * g              MS_0 = 0, before it is used
        lambda_t   = dc_lambda / sqrt(MS + eps)                    eps inside the root
        direction += lambda_t * g * g * (params - snapshot)

    With ``decay = 0`` and ``eps -> 0`` this is ``dc_lambda * |g| * (params - snapshot)``. There is
    no bias correction: the first lambda is larger by 1/sqrt(1 - decay), as in the paper.

    Args:
        dc_lambda: lambda_0 >= 0; the paper uses 2 for CIFAR-10 and ImageNet.
        decay: m, the memory of the mean square, in [0, 1); 0.95 for CIFAR-10, 0 for ImageNet.
        eps: > 0, in units of gradient squared.
        mean_square: ``global`` keeps one MS at the server, updated by every push (the paper
            indexes it by the server's time); ``per_worker`` keeps one for each worker, as the
            authors' released updater does.

    Source: Zheng et al. 2017, section 5 (DC-ASGD-a).
    """

    role: ClassVar[Role] = "compensation"
    reads_snapshot: ClassVar[bool] = True

    dc_lambda: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="strength; 0 is plain ASGD")
    ] = 2.0
    decay: Annotated[
        float, Field(ge=0, lt=1, description="memory of the mean square; 0 for none")
    ] = 0.95
    eps: Annotated[float, Field(gt=0, allow_inf_nan=False, description="added under the root")] = (
        1e-7
    )
    mean_square: Annotated[
        Literal["global", "per_worker"], Field(description="one at the server, or one a worker")
    ] = "global"

    def references(self) -> tuple[Reference, ...]:
        return (ZHENG_2017,)

    def vectors(self) -> tuple[StateVector, ...]:
        return (StateVector("mean_square", per_worker=self.mean_square == "per_worker"),)

    def scalars(self, facts: Facts) -> tuple[float, ...]:
        return (self.dc_lambda, self.decay, 1.0 - self.decay, self.eps)

    def update(
        self, lanes: Lanes, state: tuple[Tensor, ...], scalars: tuple[float | Tensor, ...]
    ) -> tuple[Lanes, tuple[Tensor, ...]]:
        dc_lambda, decay, one_minus_decay, eps = scalars
        mean_square = state[0] * decay + lanes.grad * lanes.grad * one_minus_decay
        strength = dc_lambda / (mean_square + eps).sqrt()
        drift = lanes.params - lanes.snapshot
        # In this order a mean square that overflows gives a strength of 0 and not NaN.
        correction = lanes.grad * drift * (lanes.grad * strength)
        return lanes._replace(direction=lanes.direction + correction), (mean_square,)
