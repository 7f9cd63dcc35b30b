"""Momentum: what the direction remembers of earlier directions.

Buffers hold gradients, not steps, as in PyTorch: the learning rate multiplies the buffer, so a
change of the rate acts on all of it at once. (Papers often write the rate inside the buffer; at a
constant rate the two are the same.) DANA, Adam and gap-aware momentum have modules of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.rules.part import Facts, Lanes, Part, Role, StateVector
from mpi_dcasgd.rules.references import GILADI_2020, POLYAK_1964, SUTSKEVER_2013, Reference

if TYPE_CHECKING:  # a job is checked without loading PyTorch
    from torch import Tensor

Coefficient = Annotated[float, Field(ge=0, lt=1, description="what a buffer keeps of itself")]
Dampening = Annotated[
    float, Field(ge=0, lt=1, description="share of a new direction that a buffer leaves out")
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoMomentum(Part):
    """Step along the direction as it is."""

    role: ClassVar[Role] = "momentum"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Velocity(Part):
    """Base of the parts that step along a buffer of directions.

    Scalars: what the buffer keeps of itself, and its share of a new direction.
    """

    role: ClassVar[Role] = "momentum"

    momentum: Coefficient = 0.9

    def update(
        self, lanes: Lanes, state: tuple[Tensor, ...], scalars: tuple[float | Tensor, ...]
    ) -> tuple[Lanes, tuple[Tensor, ...]]:
        momentum, intake = scalars
        velocity = state[0] * momentum + lanes.direction * intake
        return lanes._replace(direction=velocity), (velocity,)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LookAhead(Part):
    """Base of the parts whose weights are a point ahead, by one step of a buffer.

    ``v <- momentum * v + direction; direction <- direction + momentum * v``.
    """

    role: ClassVar[Role] = "momentum"

    momentum: Coefficient = 0.9

    def scalars(self, facts: Facts) -> tuple[float, ...]:
        return (self.momentum,)

    def update(
        self, lanes: Lanes, state: tuple[Tensor, ...], scalars: tuple[float | Tensor, ...]
    ) -> tuple[Lanes, tuple[Tensor, ...]]:
        (momentum,) = scalars
        velocity = state[0] * momentum + lanes.direction
        return lanes._replace(direction=lanes.direction + velocity * momentum), (velocity,)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class HeavyBall(Velocity):
    """``v <- momentum * v + (1 - dampening) * direction; direction = v`` (Polyak).

    One buffer at the server, shared by all workers; workers are sent the weights. Asynchrony
    already acts like momentum (Mitliagkas et al. 2016), and from a delay of two updates on this
    buffer lowers the largest stable learning rate: on a quadratic of curvature a with ``k =
    lr * (1 - dampening) * a`` and momentum m, stable are k < 2 (1 + m) at tau = 0, k < 1 - m at
    tau = 1, and 0.0139 at tau = 8 with m = 0.9 where no momentum allows 0.1845 (0.1394 when
    dampened). So ``none`` is the default everywhere.

    Unlike PyTorch's SGD the first direction is dampened like any other.

    Args:
        momentum: In [0, 1).
        dampening: In [0, 1); PyTorch's SGD has 0, Giladi et al. write ``1 - momentum`` in front
            of the gradient, which is ``dampening = momentum``.

    Source: B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", USSR
    Computational Mathematics and Mathematical Physics 4(5), 1964; Giladi et al., ICLR 2020,
    arXiv:1909.12340, for the effect of delay.
    """

    dampening: Dampening = 0.0

    def references(self) -> tuple[Reference, ...]:
        return (POLYAK_1964,)

    def vectors(self) -> tuple[StateVector, ...]:
        return (StateVector("velocity"),)

    def scalars(self, facts: Facts) -> tuple[float, ...]:
        return (self.momentum, 1.0 - self.dampening)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Nesterov(LookAhead):
    """``v <- momentum * v + direction; direction <- direction + momentum * v``.

    One buffer at the server. The weights that the server keeps *are* the look-ahead point, so
    they are sent as they are: with ``theta = w + lr * momentum * v`` the rule reads
    ``theta <- theta - lr * v`` and sends ``theta - lr * momentum * v``, which is how the
    literature on asynchrony writes NAG-ASGD. The point looks ahead by one update of the shared
    buffer, while a worker's gradient is applied about as many updates later as there are
    workers; ``dana`` looks ahead by one update of every worker. Equal to PyTorch's
    ``SGD(nesterov=True)`` with one worker.

    Args:
        momentum: In [0, 1).

    Source: Sutskever et al., "On the importance of initialization and momentum in deep
    learning", ICML 2013, in PyTorch's form.
    """

    def references(self) -> tuple[Reference, ...]:
        return (SUTSKEVER_2013,)

    def vectors(self) -> tuple[StateVector, ...]:
        return (StateVector("velocity"),)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PerWorkerMomentum(Velocity):
    """``v_m <- momentum * v_m + (1 - dampening) * direction; direction = v_m``, one v a worker.

    What comes of workers that each run their own momentum SGD and push weight differences. A
    worker's buffer moves only when that worker pushes. It takes num_workers vectors at the
    server; workers are sent the weights.

    Args:
        momentum: In [0, 1).
        dampening: In [0, 1). ``shifted`` is this part with ``dampening = momentum``.
    """

    dampening: Dampening = 0.0

    def vectors(self) -> tuple[StateVector, ...]:
        return (StateVector("velocity", per_worker=True),)

    def scalars(self, facts: Facts) -> tuple[float, ...]:
        return (self.momentum, 1.0 - self.dampening)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ShiftedMomentum(Velocity):
    """``v_m <- momentum * v_m + (1 - momentum) * direction; direction = v_m``, one v a worker.

    The paper shifts the buffer by the delay, like the gradient::

        v_{t+1} = m v_{t-tau} + (1 - m) grad(w_{t-tau});   w_{t+1} = w_t - lr * v_{t+1}

    The weights that a worker's gradient is of are those of its own last push, so the buffer of
    the worker that pushes *is* v_{t-tau}, in whatever order workers push. (Where a gradient is
    dropped or a worker has to wait, its weights are younger than its buffer.) The authors' code
    keeps the buffers so, too. Raises the largest stable learning rate as m grows: at tau = 1
    stable iff
    ``lr * a < (1 - m^2) / (1 - m)``; at tau = 8 the bound is 0.1845 for m = 0, 0.2212 for 0.5 and
    0.2447 for 0.9.

    The gradient is dampened by ``1 - momentum``, so a rate tuned for PyTorch's momentum has to be
    multiplied by ``1 / (1 - momentum)``. It takes num_workers vectors at the server.

    Args:
        momentum: m in [0, 1).

    Source: Giladi et al., ICLR 2020, arXiv:1909.12340 ("shifted momentum").
    """

    def references(self) -> tuple[Reference, ...]:
        return (GILADI_2020,)

    def vectors(self) -> tuple[StateVector, ...]:
        return (StateVector("velocity", per_worker=True),)

    def scalars(self, facts: Facts) -> tuple[float, ...]:
        return (self.momentum, 1.0 - self.momentum)
