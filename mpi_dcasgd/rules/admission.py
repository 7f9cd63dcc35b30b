"""Whether a gradient may enter the weights at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.rules.part import Facts, Part, Role

Verdict = Literal["apply", "drop", "hold"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Admission(Part):
    """Base of admission parts: a verdict from the facts of a push, before any vector is read.

    A dropped gradient's ticket goes back to the queue, so that an epoch still uses every sample
    exactly once; the work it cost is counted.
    """

    role: ClassVar[Role] = "admission"

    def verdict(self, facts: Facts) -> Verdict:
        """What to do with a gradient; ``hold`` keeps it until ``collect`` of them are there."""
        return "apply"

    @property
    def collect(self) -> int:
        """How many held gradients make one step, of their mean; 1 where none is ever held."""
        return 1

    def may_go_on(self, clock: int, others: Sequence[int]) -> bool:
        """Whether a worker may be given new weights and work now, or must wait.

        Args:
            clock: Gradients that the worker has delivered.
            others: The same of all workers that are computing now.
        """
        return True


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AcceptAll(Admission):
    """Apply every gradient, however stale (ASGD)."""
