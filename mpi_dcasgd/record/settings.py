"""Settings of a job's records and checkpoints."""

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
        Field(
            gt=0,
            allow_inf_nan=False,
            description="seconds of pushes that a killed run may lose from its trace",
        ),
    ] = 1.0
    sinks: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        Field(
            strict=False,
            description="where metrics go besides metrics.jsonl: csv, tensorboard, or "
            "package.module:Name of a tracker of your own",
        ),
    ] = ()
    tensorboard: Annotated[
        bool, Field(description="write events for TensorBoard: the same as tensorboard in sinks")
    ] = False

    @property
    def all_sinks(self) -> tuple[str, ...]:
        """The names of all sinks beside metrics.jsonl."""
        return tuple(dict.fromkeys((*self.sinks, *["tensorboard"] * self.tensorboard)))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CheckpointSettings:
    """The ``checkpoint:`` section of a job."""

    every: Annotated[
        Annotated[int, Field(ge=1)] | None,
        Field(description="write a checkpoint every N epochs; null: not by epochs"),
    ] = None
    every_s: Annotated[
        Annotated[float, Field(gt=0)] | None,
        Field(description="write a checkpoint every N seconds of training; null: not by time"),
    ] = 600.0
    keep: Annotated[int, Field(ge=1, description="checkpoints that are kept")] = 2
    best: Annotated[
        bool, Field(description="keep the weights of the best evaluation, beside the final ones")
    ] = True
    patience_s: Annotated[
        float,
        Field(
            gt=0,
            description="seconds without a byte after which a checkpoint that is being written is "
            "held to hang: it is told, and training, a stop and the end of the run go on. Any "
            "other file of the run that hangs for so long is told, too, and ends the run",
        ),
    ] = 120.0
    other_data: Annotated[
        Literal["refuse", "accept"],
        Field(
            description="what a resume does where the data are not those that the run began with; "
            "other numbers of training samples are always refused. accept leaves the content of "
            "the data out where ranks are compared, too"
        ),
    ] = "refuse"
