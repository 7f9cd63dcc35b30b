"""The settings of a study file."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.config.simulated import Driver
from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.settings import Count, Seed


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StudySettings:
    """Settings of a study file."""

    name: Annotated[
        str, Field(min_length=1, description="what its folder is called; else the file's name")
    ]
    job: Annotated[str, Field(min_length=1, description="the job file, relative to the study file")]
    algorithms: Annotated[
        tuple[Any, ...],
        Field(
            strict=False,
            min_length=1,
            description="names, or mappings of algorithm and of dotted keys that go with it",
        ),
    ]
    workers: Annotated[
        tuple[Count, ...],
        Field(strict=False, description="numbers of workers; sgd, which has one, runs once a seed"),
    ] = ()
    seeds: Annotated[
        tuple[Seed, ...],
        Field(strict=False, min_length=1, description="a run each"),
    ] = (0,)
    drivers: Annotated[
        tuple[Driver, ...],
        Field(
            strict=False,
            min_length=1,
            description="real runs, their simulated twins, or both; sgd, which has no delays to "
            "simulate, is run as it is, and ssgd with sync.backup is only simulated",
        ),
    ] = ("real",)
    cluster: Annotated[
        dict[str, Any] | str | None,
        Field(
            description="of the simulated runs: the keys of a cluster, its file relative to the "
            "study file, or calibrated: as the real runs beside them measured it; null: "
            "calibrated if there are any"
        ),
    ] = None
    set: Annotated[
        dict[str, Any], Field(description="dotted keys and their values, for all runs")
    ] = field(default_factory=dict)
    target_error: Annotated[
        float | None,
        Field(
            gt=0,
            lt=1,
            description="also report how soon this test error was reached; of a task whose primary "
            "metric is error, a fraction of 1",
        ),
    ] = None
    target: Annotated[
        float | None,
        Field(
            allow_inf_nan=False,
            description="also report how soon the task's primary metric was at this value or "
            "better, on the validation split if there is one; a fraction of 1 where it is shown "
            "in per cent",
        ),
    ] = None
    tune: Annotated[
        dict[str, Any] | None,
        Field(description="choose lr and other keys for each algorithm first; its keys are below"),
    ] = None
