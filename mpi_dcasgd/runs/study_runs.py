"""The runs of a study: choosing, grouping and planning them, and writing their jobs."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from mpi_dcasgd.config.load import job_as_text, job_as_yaml, with_defaults
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.study import Study
from mpi_dcasgd.config.study_elements import Element
from mpi_dcasgd.errors import ConfigError, did_you_mean
from mpi_dcasgd.record.study_folder import StudyFolder
from mpi_dcasgd.runs.study_cluster import ClusterFile
from mpi_dcasgd.tools.comparison import PlannedRun
from mpi_dcasgd.tools.launch.world import rank_program


def choose(study: Study, only: Sequence[str] | None) -> list[Element]:
    """Choose runs of a study by their names.

    Args:
        study: The study.
        only: Names, or patterns in which ``*`` and ``?`` stand for any letters; None for all runs.

    Raises:
        ConfigError: A name or a pattern fits none.
    """
    return named(study.elements, only, str(study.file))


def named(elements: Sequence[Element], only: Sequence[str] | None, where: str) -> list[Element]:
    """Choose runs by their names.

    Args:
        elements: All of them.
        only: Names or patterns; None for all runs.
        where: What they are of, for the message.

    Raises:
        ConfigError: A name or a pattern fits none.
    """
    if only is None:
        return list(elements)
    names = [element.name for element in elements]
    problems = [
        f"--only {pattern}: no such run{did_you_mean(pattern, names)} (allowed: {', '.join(names)})"
        for pattern in only
        if not fnmatch.filter(names, pattern)
    ]
    if problems:
        raise ConfigError(where, problems)
    return [e for e in elements if any(fnmatch.fnmatchcase(e.name, p) for p in only)]


def groups(elements: Sequence[Element]) -> list[list[Element]]:
    """Group runs that one process has to make: those that take their delays from another's."""
    found: dict[str, list[Element]] = {}
    for element in elements:
        found.setdefault(element.calibrated_from or element.name, []).append(element)
    return list(found.values())


def part_of(elements: Sequence[Element], index: int, count: int) -> list[Element]:
    """Return every ``count``-th group of runs, beginning with number ``index``."""
    return [element for group in groups(elements)[index::count] for element in group]


def planned(element: Element, study: StudyFolder) -> PlannedRun:
    """Return the command, the folder and the job of one run of a study."""
    folder, job_file = study.run(element.name), study.job_file(element.name)
    cluster = ClusterFile(element, study) if element.simulated else None
    program = rank_program(str(job_file), ["--run-dir", str(folder.path)])
    return PlannedRun(
        name=element.name,
        folder=folder,
        job=job_as_yaml(element.job),
        num_workers=element.num_workers,
        program=cluster.program(job_file, folder.path) if cluster else tuple(program),
        ranks=None if element.sequential or cluster else element.ranks,
        cluster=cluster,
        read_stored=with_defaults,
    )


def write_job(study: Study, element: Element, folder: StudyFolder) -> None:
    """Write the job file of one run, so that nobody can change the job between two runs.

    Raises:
        RunFolderError: It cannot be written, or is a file of somebody else's.
    """
    changes = " ".join(f"{key}={value}" for key, value in element.overrides)
    header = f"# {study.job_file} with {changes}\n"
    folder.write_job(element.name, header + job_as_text(element.job))


def check_models_of(jobs: Sequence[Job]) -> None:
    """Refuse what would fail in each run's start, before any run is started."""
    if not all(job.model.shapes_known for job in jobs):
        from mpi_dcasgd.config.plan import check_models  # loads PyTorch

        check_models(jobs)
