"""Study files: one job, and the grid of algorithms, workers, seeds and drivers to run it with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpi_dcasgd.config.check import build, known_beside_jobs
from mpi_dcasgd.config.load import read_mapping
from mpi_dcasgd.config.own_code import code_folder
from mpi_dcasgd.config.simulated import backup_workers, cluster_settings
from mpi_dcasgd.config.study_elements import (
    Element,
    choose_variants,
    lay_out,
    simulated_twins,
    with_code_of_delays,
)
from mpi_dcasgd.config.study_settings import StudySettings
from mpi_dcasgd.config.tuning import Tuning
from mpi_dcasgd.config.tuning_layout import lay_out_tuning
from mpi_dcasgd.errors import ConfigError, UserError
from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.modules import searching


@dataclass(frozen=True)
class Study:
    """A study: its runs, in the order in which they are to be run.

    Attributes:
        name: The study's name, which its folder has by default.
        file: The study file.
        job_file: The job file that it names.
        elements: The runs.
        target_error: Also report how soon this test error was reached.
        target: Also report how soon the primary metric was at this value or better.
        mapping: The content of the study file.
        tuning: The runs that choose values for these runs first; None if there are none.
    """

    name: str
    file: Path
    job_file: Path
    elements: tuple[Element, ...]
    target_error: float | None
    target: float | None
    mapping: Mapping[str, Any] = field(compare=False, repr=False)
    tuning: Tuning | None = None

    @property
    def code(self) -> str | None:
        """The folder of the modules that its jobs name; None if they name none of a user's own."""
        return next((e.job.code for e in self.elements if e.job.code is not None), None)


def load_study(path: Path | str) -> Study:
    """Read a study file and check the job of every run.

    Raises:
        ConfigError: With every problem of the file and of all its runs.
    """
    path = Path(path)
    return make_study(read_mapping(path, "study"), path)


def make_study(mapping: Mapping[str, Any], path: Path) -> Study:
    """Check the study that a file holds, and the job of every run.

    Args:
        mapping: The content of the file.
        path: The file; the job that it names lies relative to it.

    Raises:
        ConfigError: With every problem of the file and of all its runs.
    """
    if "algorithms" not in mapping and ("model" in mapping or "data" in mapping):
        raise ConfigError(
            str(path),
            [
                "this is a job, not a study; train or run starts it, and a study names it (job:) "
                "and what to compare (algorithms:)"
            ],
        )
    problems: list[str] = []
    values = known_beside_jobs(mapping, StudySettings, problems)
    settings = build(StudySettings, {"name": path.stem, **values}, "", problems)
    if settings is None:
        raise ConfigError(str(path), problems)
    if settings.target is not None and settings.target_error is not None:
        problems.append(
            "target, target_error: both are there; omit one (target is of any task's primary "
            "metric, target_error of classification's)"
        )
    variants = choose_variants(settings, problems)
    job_file = path.parent / settings.job
    try:
        base = read_mapping(job_file)
    except ConfigError as error:
        problems += [f"job: {job_file}: {line}" for line in error.problems]
        raise ConfigError(str(path), problems) from error
    code = code_folder({**base, **settings.set}, job_file.parent)
    with searching(code, job_file.parent, path.parent, fresh=True):
        cluster = cluster_settings(settings.cluster, settings.drivers, path.parent, problems)
    elements, found = lay_out(settings, variants, base, job_file)
    problems += found
    problems += _targets_never_reached(settings, elements)
    with searching(code, job_file.parent, path.parent, fresh=True):
        tuning = lay_out_tuning(settings, variants, base, job_file, path.parent, problems)
    if "simulated" in settings.drivers:
        complete = len({element.label for element in elements}) == len(settings.algorithms)
        twins, found = simulated_twins(elements, cluster, complete=complete)
        problems += found
        real = [e for e in elements if "real" in settings.drivers or e.sequential]
        real = [e for e in real if not backup_workers(e.job)]
        elements = sorted([*real, *twins], key=lambda e: settings.seeds.index(e.job.seed))
    elif any(backup_workers(element.job) for element in elements):
        problems.append(
            "sync.backup: an allreduce waits for every rank, so only simulated runs have backup "
            "workers; set drivers: [real, simulated]"
        )
    if problems:
        raise ConfigError(str(path), problems)
    elements = [with_code_of_delays(element) for element in elements]
    return Study(
        settings.name,
        path,
        job_file,
        tuple(elements),
        settings.target_error,
        settings.target,
        mapping,
        tuning,
    )


def _targets_never_reached(settings: StudySettings, elements: Sequence[Element]) -> list[str]:
    """Return what is wrong with a target, as far as the tasks can be made here."""
    problems: list[str] = []
    if settings.target is None and settings.target_error is None:
        return problems
    tasks = {element.job.task.name: element.job for element in elements}
    for name, job in tasks.items():
        try:
            with job.importing():
                measures = Measures.of(job.make_task())
        except UserError:
            continue  # it may want what only the machines of its runs have, and is told there
        problems += measures.beyond(settings.target)
        if settings.target_error is not None and measures.primary != Measures().primary:
            problems.append(
                f"target_error: got {settings.target_error:g}, but the primary metric of the task "
                f"{name} is {measures.primary}; set target instead, a value of that"
            )
    return list(dict.fromkeys(problems))
