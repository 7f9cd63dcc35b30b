"""Admission: whether a gradient may enter the weights at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.rules.part import Facts, Part, Role
from mpi_dcasgd.rules.references import HO_2013, MARANJYAN_2025, TYURIN_2023, Reference

Verdict = Literal["apply", "drop", "hold"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Admission(Part):
    """Base of admission parts: a verdict from the facts of a push, before any vector is read.

    A dropped gradient's ticket goes back to the queue, so that an epoch still uses every sample
    exactly once; the work it cost is counted. So that a run can end, a gradient without
    staleness must never be dropped, and the slowest worker must always be let on.
    """

    role: ClassVar[Role] = "admission"

    def verdict(self, facts: Facts) -> Verdict:
        """Decide about a gradient; ``hold`` keeps it until ``collect`` of them are there."""
        return "apply"

    def collect(self, num_workers: int) -> int:
        """Number of held gradients that make one step, of their mean; 1 where none is ever held."""
        return 1

    def may_go_on(self, clock: int, others: Sequence[int]) -> bool:
        """Return whether a worker may be given new weights and work now, or must wait.

        Args:
            clock: Gradients that the worker has delivered.
            others: The same of all workers that are computing now.
        """
        return True


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AcceptAll(Admission):
    """Apply every gradient, however stale (ASGD)."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Threshold(Admission):
    """Apply a gradient iff ``tau < threshold``; else have its ticket computed afresh.

    The largest staleness that is ever applied is ``threshold - 1``. A threshold of 1 is
    sequential SGD, whoever computes; an infinite one is ASGD. The paper's own choice is
    ``max(1, ceil(sigma^2 / eps))`` from the variance of gradients and the accuracy wanted, which
    nobody knows beforehand. Its variant that interrupts a worker as soon as its gradient has
    become too stale is not offered: a worker is only told what became of a gradient when it
    delivers it.

    Args:
        threshold: R >= 1, in updates; None for twice the number of workers, which equal workers
            never reach.

    Source: A. Maranjyan, A. Tyurin, P. Richtarik, "Ringmaster ASGD: The First Asynchronous SGD
    with Optimal Time Complexity", ICML 2025, arXiv:2501.16168.
    """

    threshold: Annotated[
        Annotated[int, Field(ge=1)] | None,
        Field(description="staleness from which on gradients are dropped; null for 2 per worker"),
    ] = None

    def references(self) -> tuple[Reference, ...]:
        return (MARANJYAN_2025,)

    def verdict(self, facts: Facts) -> Verdict:
        limit = self.threshold or 2 * facts.num_workers
        return "apply" if facts.staleness < limit else "drop"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Collect(Admission):
    """Hold gradients computed at the present weights until there are enough, then step once.

    The step is along the mean over all samples held, so B equal tickets are exactly a minibatch B
    times as large. A gradient computed before the last step is dropped and its ticket computed
    afresh. So every step has staleness 0 and momentum is as safe as in minibatch SGD; nobody
    waits for a straggler, and a worker that is faster contributes more often. At the end of a run
    a smaller rest makes a last step.

    Args:
        gradients: B >= 1 gradients a step; None for the number of workers.

    Source: A. Tyurin, P. Richtarik, "Optimal Time Complexities of Parallel Stochastic
    Optimization Methods Under a Fixed Computation Model", NeurIPS 2023, arXiv:2305.12387 (Rennala
    SGD).
    """

    gradients: Annotated[
        Annotated[int, Field(ge=1)] | None,
        Field(description="fresh gradients that make a step; null for the number of workers"),
    ] = None

    def references(self) -> tuple[Reference, ...]:
        return (TYURIN_2023,)

    def verdict(self, facts: Facts) -> Verdict:
        return "hold" if facts.staleness == 0 else "drop"

    def collect(self, num_workers: int) -> int:
        return self.gradients or num_workers


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StaleSynchronous(Admission):
    """A worker more than ``bound`` gradients ahead of the slowest waits for it.

    Worker at clock c (gradients delivered) continues iff ``c - min(clocks) <= bound``, the minimum
    over the workers that are computing. So a worker at clock c has been sent every update of the
    clocks up to ``c - bound - 1``, and nothing is ever applied with a staleness above
    ``(2 bound + 1) (M - 1)``. With a bound of 0 all workers finish a round before anyone begins
    the next (bulk-synchronous), though each gradient is still applied as it comes. Every gradient
    is applied.

    Args:
        bound: s >= 0, in gradients.

    Source: Q. Ho et al., "More Effective Distributed ML via a Stale Synchronous Parallel
    Parameter Server", NeurIPS 2013.
    """

    bound: Annotated[
        int, Field(ge=0, description="gradients that a worker may be ahead of the slowest")
    ] = 3

    def references(self) -> tuple[Reference, ...]:
        return (HO_2013,)

    def may_go_on(self, clock: int, others: Sequence[int]) -> bool:
        return not others or clock - min(others) <= self.bound
