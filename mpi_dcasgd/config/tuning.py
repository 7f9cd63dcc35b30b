"""A study's tuning: what is tuned by itself, its runs, and jobs with the chosen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpi_dcasgd.config.check import try_job
from mpi_dcasgd.config.load import Override, with_overrides
from mpi_dcasgd.config.study_elements import Element
from mpi_dcasgd.config.tuning_settings import TuneSettings
from mpi_dcasgd.errors import ConfigError


@dataclass(frozen=True)
class Candidate:
    """One tuning run.

    Attributes:
        element: The run.
        values: What it tries, by key.
    """

    element: Element
    values: tuple[Override, ...]


@dataclass(frozen=True)
class TunedGroup:
    """An algorithm, with a number of workers, that is tuned by itself.

    Attributes:
        label: The variant's, with which the names of its runs begin.
        algorithm: Its name.
        workers: The number of workers of its tuning runs.
        for_all: Its values are taken for every number of workers.
        grid: The values of each key that the algorithm has.
        candidates: As many as of every other group.
    """

    label: str
    algorithm: str
    workers: int
    for_all: bool
    grid: Mapping[str, tuple[Any, ...]]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Tuning:
    """Tuning of a study before its runs.

    Attributes:
        settings: Of ``tune``.
        groups: What is tuned, in the order of its runs.
        base: The content of the job file.
        job_file: The job file.
    """

    settings: TuneSettings
    groups: tuple[TunedGroup, ...]
    base: Mapping[str, Any]
    job_file: Path

    @property
    def elements(self) -> tuple[Element, ...]:
        """All tuning runs."""
        return tuple(c.element for group in self.groups for c in group.candidates)

    def tried(self) -> list[str]:
        """The values of each tuning run in words."""
        return [
            ", ".join(f"{key} {value}" for key, value in candidate.values)
            for group in self.groups
            for candidate in group.candidates
        ]

    def group_of(self, element: Element) -> TunedGroup:
        """The group whose chosen values one of the study's runs has."""
        return next(
            group
            for group in self.groups
            if group.label == element.label
            and (group.for_all or group.workers == element.num_workers)
        )

    def tuned(self, element: Element, values: Sequence[Override]) -> Element:
        """Return one of the study's runs with chosen values in its job.

        Raises:
            ConfigError: The job does not allow them together.
        """
        pairs = (*element.overrides, *values)
        merged, problems = with_overrides(self.base, pairs)
        folder = self.job_file.parent
        job, found = try_job(merged, name=self.job_file.stem, folder=folder)
        if job is None or problems:
            raise ConfigError(f"{element.name} with the tuned values", [*problems, *found])
        return replace(element, job=replace(job, code=element.job.code), overrides=pairs)
