"""What a job may say about its own records."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RecordSettings:
    """The ``record:`` section of a job."""

    progress: Annotated[
        Literal["auto", "bar", "lines", "off"],
        Field(description="a live bar on a terminal, plain lines in a log, or as auto finds out"),
    ] = "auto"
    line_every_s: Annotated[
        float, Field(gt=0, description="seconds between plain progress lines")
    ] = 10.0
    log_every_s: Annotated[
        float, Field(gt=0, description="seconds between progress events in metrics.jsonl")
    ] = 5.0
    trace: Annotated[bool, Field(description="record every push, so that replay can repeat it")] = (
        True
    )
    trace_flush_s: Annotated[
        float,
        Field(gt=0, description="seconds of pushes that a killed run may lose from its trace"),
    ] = 1.0
