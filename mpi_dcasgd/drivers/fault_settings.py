"""The settings of what a run does about workers that hang."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT

Patience = Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["auto", "never"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FaultSettings:
    """The ``faults:`` section of a job."""

    patience: Annotated[
        Patience,
        Field(
            description="seconds after which a worker from which nothing came is named and given "
            "up; auto follows from its own steps (docs/faults.md), never waits for ever"
        ),
    ] = "auto"
