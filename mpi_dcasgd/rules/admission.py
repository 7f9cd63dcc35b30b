"""Whether a gradient may enter the weights at all."""

from __future__ import annotations

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
        return "apply"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AcceptAll(Admission):
    """Apply every gradient, however stale (ASGD)."""
