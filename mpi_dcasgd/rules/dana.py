"""DANA: momentum per worker, and weights that look ahead by the momentum of all workers.

Source: I. Hakimi, S. Barkai, M. Gabel, A. Schuster, "Taming Momentum in a Distributed
Asynchronous Environment", arXiv:1907.11612.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.rules.momentum import Coefficient, LookAhead
from mpi_dcasgd.rules.part import Facts, Lanes, Part, Role, StateVector
from mpi_dcasgd.rules.references import HAKIMI_2019, Reference

if TYPE_CHECKING:  # a job is checked without loading PyTorch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DanaZero(Part):
    """DANA-Zero: one velocity a worker, and a look-ahead by all of them.

    ::

        on push:   v_i <- momentum * v_i + direction;   params <- params - rate * v_i
        sent:      params - rate * momentum * sum_j v_j

    By the time worker i's gradient is applied, every other worker will have pushed about once;
    what their momentum will add is known now, and the gradient is taken at that point. The sum is
    kept as a running one, so that a push reads one velocity and not all of them.

    The server's own weights, which are evaluated and saved, are ``params``, not the point that
    workers compute at. With one worker and a constant rate the points sent are those of PyTorch's
    ``SGD(nesterov=True)``. The rate used for what is sent is the schedule's at the update just
    made. A step size's factor for the staleness of that push is not in it: it says nothing about
    the pushes to come (``StepSize.lasting``).
    As workers are sent something else than the weights, ``params - snapshot`` is no drift, and
    delay compensation is refused beside this part: ``dana-slim`` is the same method with weights
    that are sent as they are.

    The velocity of a worker that died stays in the sum, and the points sent stay ahead by it, until
    the run resumes from a checkpoint with those that are left: where workers may die, use
    ``dana-slim``.

    Memory: num_workers + 1 vectors.

    Args:
        momentum: In [0, 1); the paper uses 0.9.
    """

    role: ClassVar[Role] = "momentum"

    momentum: Coefficient = 0.9

    def references(self) -> tuple[Reference, ...]:
        return (HAKIMI_2019,)

    def vectors(self) -> tuple[StateVector, ...]:
        return (StateVector("velocity", per_worker=True), StateVector("velocity_sum"))

    def scalars(self, facts: Facts) -> tuple[float, ...]:
        return (self.momentum,)

    def update(
        self, lanes: Lanes, state: tuple[Tensor, ...], scalars: tuple[float | Tensor, ...]
    ) -> tuple[Lanes, tuple[Tensor, ...]]:
        (momentum,) = scalars
        old, total = state
        velocity = old * momentum + lanes.direction
        return lanes._replace(direction=velocity), (velocity, total + (velocity - old))

    def sent(
        self,
        params: Tensor,
        state: tuple[Tensor, ...],
        scalars: tuple[float | Tensor, ...],
        rate: float | Tensor,
    ) -> Tensor:
        return params - state[1] * (scalars[0] * rate)

    def regrouped(self, state: Mapping[str, Sequence[Tensor]]) -> None:
        (total,) = state["velocity_sum"]
        total.zero_()
        for velocity in state["velocity"]:
            total.add_(velocity)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DanaSlim(LookAhead):
    """DANA-Slim: DANA-Zero in terms of the look-ahead point itself.

    ::

        on push:   v_i <- momentum * v_i + direction;
                   params <- params - rate * (momentum * v_i + direction)
        sent:      params

    With ``params = theta - rate * momentum * sum_j v_j`` this is DANA-Zero exactly, as long as
    the rate is constant; when the rate changes, Zero's look-ahead changes with it at once and
    Slim's does not. Weight decay acts on the look-ahead point here and on theta in Zero. The
    server's weights, which are evaluated and saved, are the look-ahead point.

    In the paper each worker keeps its v and pushes ``momentum * v + g``, so that the server needs
    no state. Here the velocities are kept at the server, one a worker: a push is then a gradient
    as in every other rule, and a worker can be lost without its momentum. With delay compensation
    (``dana-dc``), which the server adds to the gradient before the momentum, there is no other
    way. As what is sent is the weights, ``params - snapshot`` is the drift of the look-ahead
    point, and nothing is left of the compensation at staleness 0.

    Memory: num_workers vectors.

    Args:
        momentum: In [0, 1); the paper uses 0.9.
    """

    def references(self) -> tuple[Reference, ...]:
        return (HAKIMI_2019,)

    def vectors(self) -> tuple[StateVector, ...]:
        return (StateVector("velocity", per_worker=True),)
