"""Lay out the tuning runs of a study: an equal budget for each algorithm, or what is wrong."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpi_dcasgd.config.check import build, known, try_job
from mpi_dcasgd.config.effects import idle_settings
from mpi_dcasgd.config.load import Override, with_overrides
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.simulated import (
    CALIBRATED,
    backup_workers,
    check_injected,
    check_simulated,
    cluster_settings,
    with_injected,
)
from mpi_dcasgd.config.study_elements import Element, Variant
from mpi_dcasgd.config.study_settings import StudySettings
from mpi_dcasgd.config.tuning import Candidate, TunedGroup, Tuning
from mpi_dcasgd.config.tuning_grid import budget_of, sample, values_of
from mpi_dcasgd.config.tuning_settings import TuneSettings
from mpi_dcasgd.rules.algorithms import mode_of

_TAKEN = {
    "algorithm": "algorithms are",
    "seed": "tune.seed and seeds are",
    "name": "the study's file is",
}


def lay_out_tuning(
    settings: StudySettings,
    variants: Sequence[Variant],
    base: Mapping[str, Any],
    job_file: Path,
    study_folder: Path,
    problems: list[str],
) -> Tuning | None:
    """Return the tuning runs of a study; None without a ``tune``, or where it is wrong.

    Args:
        settings: Of the study file.
        variants: Its algorithms.
        base: The content of the job file.
        job_file: The file.
        study_folder: What files of clusters are relative to.
        problems: Lines are added.
    """
    if settings.tune is None:
        return None
    before = len(problems)
    tune = build(
        TuneSettings, known(settings.tune, "tune.", TuneSettings, problems), "tune.", problems
    )
    if tune is None:
        return None
    problems += _contradictions(settings, tune)
    grid = values_of(tune.grid, problems)
    problems += [
        f"algorithms: {variant.label} has its own {key}, which tune.grid has, too; omit one"
        for variant in variants
        for key, _ in variant.overrides
        if key in grid
    ]
    cluster = _cluster(settings, tune, study_folder, problems)
    if len(problems) > before:
        return None
    maker = _Maker(settings, tune, base, job_file, cluster)
    grids = maker.own_grids(variants, grid, problems)
    # Which keys the others have is not known for certain; their problems are told without tuning.
    sound = [variant for variant in variants if maker.is_sound(variant)]
    if len(problems) > before or not sound:
        return None
    budget = budget_of(tune, {one.label: grids[one.label] for one in sound}, problems)
    groups = [
        group
        for variant in sound
        for group in maker.groups(variant, grids[variant.label], budget, problems)
    ]
    return None if len(problems) > before else Tuning(tune, tuple(groups), base, job_file)


def _contradictions(settings: StudySettings, tune: TuneSettings) -> list[str]:
    found = []
    if tune.seed in settings.seeds:
        found.append(
            f"tune.seed: {tune.seed} is one of seeds; runs that had a part in choosing cannot be "
            "among those that are compared, set another"
        )
    if tune.by == "time-to-target" and settings.target is None and settings.target_error is None:
        found.append("tune.by: time-to-target needs a target; set target or target_error")
    if tune.cap_s is not None and tune.by == "final":
        found.append("tune.cap_s: has no effect by: final; omit it, or set by: time-to-target")
    if tune.cluster is not None and _driver(settings, tune) == "real":
        found.append("tune.cluster: applies to simulated tuning runs; set tune.driver: simulated")
    found += [f"tune.grid.{key}: is what {_TAKEN[key]} for" for key in tune.grid if key in _TAKEN]
    return found


def _driver(settings: StudySettings, tune: TuneSettings) -> str:
    return tune.driver or ("real" if "real" in settings.drivers else "simulated")


def _cluster(
    settings: StudySettings, tune: TuneSettings, folder: Path, problems: list[str]
) -> Mapping[str, Any] | None:
    """The cluster of simulated tuning runs; None if they are real."""
    if _driver(settings, tune) == "real":
        return None
    value = settings.cluster if tune.cluster is None else tune.cluster
    if value == CALIBRATED or (value is None and "real" in settings.drivers):
        problems.append(
            "tune.cluster: missing; nothing has been measured before tuning, so give the keys of a "
            "cluster, or the file that calibrate wrote"
        )
        return None
    found: list[str] = []
    cluster = cluster_settings(value, ("simulated",), folder, found)
    problems += [line if tune.cluster is None else f"tune.{line}" for line in found]
    return cluster


class _Maker:
    """Makes jobs with tried values."""

    def __init__(
        self,
        settings: StudySettings,
        tune: TuneSettings,
        base: Mapping[str, Any],
        job_file: Path,
        cluster: Mapping[str, Any] | None,
    ) -> None:
        self._settings = settings
        self._tune = tune
        self._base = base
        self._job_file = job_file
        self._cluster = cluster

    def _pairs(self, variant: Variant, values: Sequence[Override]) -> tuple[Override, ...]:
        own = (("algorithm", variant.algorithm), ("seed", self._tune.seed))
        return (*self._settings.set.items(), *variant.overrides, *own, *values)

    def _job(self, variant: Variant, values: Sequence[Override]) -> tuple[Job | None, list[str]]:
        merged, problems = with_overrides(self._base, self._pairs(variant, values))
        folder = self._job_file.parent
        job, found = try_job(merged, name=self._job_file.stem, folder=folder)
        return job, [*problems, *found]

    def is_sound(self, variant: Variant) -> bool:
        """Return whether nothing is wrong with an algorithm's job as it is without tuning."""
        return not self._job(variant, [])[1]

    def own_grids(
        self,
        variants: Sequence[Variant],
        grid: Mapping[str, tuple[Any, ...]],
        problems: list[str],
    ) -> dict[str, dict[str, tuple[Any, ...]]]:
        """The keys that each algorithm has, with their values."""
        found: dict[str, dict[str, tuple[Any, ...]]] = {v.label: {} for v in variants}
        for key, values in grid.items():
            lines: dict[str, None] = {}
            for variant in variants:
                lacks, wrong = self._try(variant, key, values)
                if wrong:
                    problems += [f"tune.grid: {line}" for line in wrong]
                elif lacks:
                    lines |= dict.fromkeys(lacks)
                if wrong or not lacks:
                    found[variant.label][key] = values
            everybody = len(variants) == len(self._settings.algorithms)
            if everybody and not any(key in own for own in found.values()):
                problems.append(f"tune.grid.{key}: no algorithm has it: {'; '.join(lines)}")
        problems[:] = dict.fromkeys(problems)
        problems += [
            f"tune.grid: has no key that {label} has; add lr, which all have"
            for label, own in found.items()
            if not own and not problems
        ]
        return found

    def _try(
        self, variant: Variant, key: str, values: Sequence[Any]
    ) -> tuple[list[str], list[str]]:
        """Say why an algorithm does not have a key, or else which values are wrong."""
        before = self._job(variant, [])[1]  # told of the study's own runs
        wrong: list[str] = []
        for value in values:
            job, found = self._job(variant, [(key, value)])
            lines = [line for line in found if line not in before]
            if any(": unknown" in line for line in lines):
                return lines, []
            if job is not None and not lines:
                idle = idle_settings(job, self._base, [key], [*self._settings.set, "algorithm"])
                if idle:
                    return idle, []
            wrong += lines
        return [], wrong

    def groups(
        self,
        variant: Variant,
        grid: Mapping[str, tuple[Any, ...]],
        budget: int,
        problems: list[str],
    ) -> list[TunedGroup]:
        """An algorithm's groups: one for each number of workers, or one for all."""
        sequential = mode_of(variant.algorithm) == "sequential"
        fixed = self._tune.workers
        sizes = (1,) if sequential else self._settings.workers if fixed is None else (fixed,)
        combinations = [
            tuple(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
        ]
        if len(combinations) > budget:
            choice = random.Random(f"{self._tune.seed} {variant.label}")
            combinations = sample(grid, budget, choice)
        for_all = sequential or fixed is not None
        return [
            TunedGroup(
                variant.label,
                variant.algorithm,
                size,
                for_all,
                grid,
                tuple(
                    self._candidate(variant, size, number, values, problems)
                    for number, values in enumerate(combinations, start=1)
                ),
            )
            for size in sizes
        ]

    def _candidate(
        self,
        variant: Variant,
        workers: int,
        number: int,
        values: tuple[Override, ...],
        problems: list[str],
    ) -> Candidate:
        job, lines = self._job(variant, values)
        sequential = mode_of(variant.algorithm) == "sequential"
        simulated = self._cluster is not None and not sequential
        cluster = None
        if job is not None:
            lines += [] if sequential else check_injected(job, workers)
            lines += _without_validation(job)
            if simulated:
                cluster = with_injected(self._cluster or {}, job)
                lines += check_simulated(cluster, job, workers)
            elif backup_workers(job):
                lines.append(
                    "tune.driver: only simulated runs have backup workers (sync.backup); set it to "
                    "simulated"
                )
        problems += [line for line in lines if line not in problems]
        size = "" if sequential else f"-w{workers}"
        name = f"{variant.label}{size}-t{number}"
        if job is None:  # nothing is made of it: there are problems
            return Candidate(Element(name, None, workers, ()), values)  # type: ignore[arg-type]
        pairs = self._pairs(variant, values)
        element = Element(name, job, workers, pairs, simulated, cluster, label=variant.label)
        return Candidate(element, values)


def _without_validation(job: Job) -> list[str]:
    """Say that a job has no samples to choose by; a file of arrays may bring its own."""
    if job.data.validation or job.data.name in ("task", "arrays") or ":" in job.data.name:
        return []
    return [
        "data.validation: is 0, so that tune would choose on the test split; set a fraction of the "
        "training samples, such as set: {data.validation: 0.1}"
    ]
