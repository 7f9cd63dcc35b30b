"""The settings of a study's ``tune``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.config.simulated import Driver
from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.settings import Count, Seed


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TuneSettings:
    """Settings of a study's ``tune``."""

    grid: Annotated[
        dict[str, Any],
        Field(
            min_length=1,
            description="dotted keys of a job, each with a list of values or with powers: "
            "{base: 0.1, factor: 2, steps: 3} are 0.1, 0.2 and 0.4; a key counts for the "
            "algorithms that have it",
        ),
    ]
    runs: Annotated[
        Count | None,
        Field(
            description="the budget: tuning runs of each algorithm and number of workers, a sample "
            "where the grid has more; null: as many as the smallest grid of an algorithm has"
        ),
    ] = None
    by: Annotated[
        Literal["final", "time-to-target"],
        Field(
            description="chosen by the final value of the primary metric, or by the time to the "
            "study's target or target_error, on the validation split"
        ),
    ] = "final"
    cap_s: Annotated[
        float | None,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="of time-to-target: what takes longer, in seconds of the run's clock, "
            "cannot win; null: the end of the run is the cap",
        ),
    ] = None
    seed: Annotated[Seed, Field(description="of all tuning runs; none of the study's seeds")] = 1000
    driver: Annotated[
        Driver | None,
        Field(
            description="of the tuning runs; simulated needs a cluster (with real final runs, "
            "tune.cluster); null: real if the study has real runs"
        ),
    ] = None
    cluster: Annotated[
        dict[str, Any] | str | None,
        Field(
            description="of simulated tuning runs: the keys of a cluster, or its file relative to "
            "the study file; null: the study's"
        ),
    ] = None
    workers: Annotated[
        Count | None,
        Field(
            description="tune with this number of workers and take its values for all; null: tune "
            "for each number of workers, since the best rate depends on the delay"
        ),
    ] = None
