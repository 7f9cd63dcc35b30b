"""Base class of the parts of an update rule: a little state and one elementwise step.

A rule is a chain of parts. Every part sees the same four *lanes*, element by element, changes
some of them and hands them on::

    grad       g_m, the minibatch mean gradient that worker m pushed
    direction  what will be subtracted, times the step size; begins as ``grad``
    params     w_t, the server's weights now
    snapshot   w_bak(m), the weights that worker m was sent and computed ``grad`` at

Because a part is elementwise, the whole chain can run over a vector in one pass, in blocks of
any size, on any device, with the same result. Whatever is not elementwise (a norm, a schedule,
anything that depends on the staleness) is worked out first and arrives as a *scalar*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.rules.references import Reference

if TYPE_CHECKING:  # a job is checked without loading PyTorch
    from torch import Tensor

Role = Literal["admission", "clipping", "weight_decay", "compensation", "momentum", "step_size"]


class Facts(NamedTuple):
    """Facts about one push that are known before any vector is read.

    Attributes:
        lr: Learning rate of the schedule at this point of training.
        lr_max: The largest rate that the schedule has given so far, this one included.
        staleness: tau, in updates: server version now minus the version pulled.
        version: Updates applied so far, t.
        worker: Which worker pushed, from 0.
        num_workers: Workers in the run (without the server).
        grad_norm: Euclidean norm of the pushed gradient.
    """

    lr: float
    lr_max: float
    staleness: int
    version: int
    worker: int
    num_workers: int
    grad_norm: float


class Lanes(NamedTuple):
    """Equal-length pieces of the four vectors, shape (n,), float32 (see the module)."""

    grad: Tensor
    direction: Tensor
    params: Tensor
    snapshot: Tensor


class StateVector(NamedTuple):
    """A vector of the length of the weights that a part keeps at the server.

    Attributes:
        name: Unique within the part.
        per_worker: One for every worker (indexed by who pushed) instead of one in all.
        fill: What it holds before the first update.
    """

    name: str
    per_worker: bool = False
    fill: Literal["zeros", "weights"] = "zeros"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Part:
    """Base of all parts; by itself it does nothing.

    A subclass is a frozen dataclass whose fields are its hyperparameters. It may override any of
    the methods below; none of them may keep anything on ``self``.
    """

    role: ClassVar[Role]
    reads_snapshot: ClassVar[bool] = False

    def references(self) -> tuple[Reference, ...]:
        """Papers that the part comes from, with these settings; reports cite them."""
        return ()

    def vectors(self) -> tuple[StateVector, ...]:
        """The state vectors that ``update`` receives and returns, in order."""
        return ()

    def scalars(self, facts: Facts) -> tuple[float, ...]:
        """The numbers that ``update`` receives for this push, in order."""
        return ()

    def update(
        self, lanes: Lanes, state: tuple[Tensor, ...], scalars: tuple[float | Tensor, ...]
    ) -> tuple[Lanes, tuple[Tensor, ...]]:
        """One elementwise step: new lanes and new state. Must not write into its arguments."""
        return lanes, state

    def sent(
        self,
        params: Tensor,
        state: tuple[Tensor, ...],
        scalars: tuple[float | Tensor, ...],
        rate: float | Tensor,
    ) -> Tensor:
        """Return the vector that a worker is sent instead of ``params``, for rules that look ahead.

        Elementwise, from the weights and this part's state after the update; ``rate`` is the
        learning rate, with a step size's factor only if it is the same for every push
        (``StepSize.lasting``). What is sent is what the worker's snapshot holds afterwards.
        """
        return params

    def regrouped(self, state: Mapping[str, Sequence[Tensor]]) -> None:
        """Make the state fit again after workers were left out or joined, in place.

        A run may be resumed with another number of workers than before: those that are left keep
        their vectors, new ones begin with theirs filled as at the start.

        Args:
            state: The vectors by name: one, or one a worker.
        """
