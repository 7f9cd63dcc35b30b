"""How far to go along the direction, given how stale it is."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.rules.part import Facts, Part, Role


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StepSize(Part):
    """Base of step sizes: a factor on the schedule's learning rate, from the facts of a push."""

    role: ClassVar[Role] = "step_size"

    def factor(self, facts: Facts) -> float:
        """What the schedule's learning rate is multiplied by, >= 0."""
        return 1.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ConstantStep(StepSize):
    """The schedule's learning rate, whatever the staleness."""
