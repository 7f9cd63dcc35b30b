"""Submissions to SLURM: what comes of one, and what those of jobs and studies have in common."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.record.slurm_folder import SlurmFolder
from mpi_dcasgd.runs.slurm_request import SlurmRequest
from mpi_dcasgd.tools.slurm.directives import sets
from mpi_dcasgd.tools.slurm.site import Site
from mpi_dcasgd.tools.slurm.site_files import find_site_file
from mpi_dcasgd.tools.slurm.states import Answer


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """Jobs that were submitted, or with ``dry_run`` would be.

    Attributes:
        name: The name of the job or study.
        folder: The run folder, or the folder of the study's runs; absolute.
        job_id: SLURM's number; None if nothing was submitted.
        tuning_id: The array of a study's tuning runs, which the others wait for.
        report_id: The job that writes a study's report, submitted after the others.
        script: The text of the script; empty if no run is left to submit. That of a study with
            tuning runs comes after theirs.
        logs: Files that the jobs print into, relative to ``folder``; may be patterns.
        parts: The names of the runs of each element of a study's array; empty for a job.
        tuning_parts: The names of the tuning runs of each element of theirs.
        waiting: The names of runs that were left out, for they are in the queue already.
        array_limit: Elements of the array that run at a time; None for all.
    """

    name: str
    folder: Path
    job_id: str | None = None
    report_id: str | None = None
    tuning_id: str | None = None
    script: str = ""
    logs: tuple[str, ...] = ()
    parts: tuple[tuple[str, ...], ...] = ()
    tuning_parts: tuple[tuple[str, ...], ...] = ()
    waiting: tuple[str, ...] = ()
    array_limit: int | None = None

    @property
    def job_ids(self) -> tuple[str, ...]:
        """SLURM's numbers of all jobs that were submitted."""
        ids = (self.tuning_id, self.job_id, self.report_id)
        return tuple(job_id for job_id in ids if job_id is not None)


def logs_of(site: Site, log: str) -> tuple[str, ...]:
    """The log of the script, unless the user has it print elsewhere."""
    return () if sets(site.extra, "-o", "--output") else (log,)


def site_of(request: SlurmRequest, ranks: int | None) -> Site:
    """The allocation, with the file of the site that the script sources first."""
    return request.site(ranks, _site_file(request.site_env or os.environ.get("SITE")))


def _site_file(choice: str | None) -> str | None:
    return None if choice is None else str(find_site_file(choice))


def refuse_silence(slurm: SlurmFolder, answer: Answer) -> None:
    """Refuse where SLURM does not answer: two jobs must not work in one folder.

    Raises:
        LaunchError: Not to know of the first is no reason for a second.
    """
    if answer.silence:
        raise LaunchError(
            f"{slurm.path.parent}: SLURM does not say whether the jobs that were submitted for "
            f"this folder are still in the queue ({answer.silence}); nothing was submitted, try "
            "again later"
        )


def within(folder: Path, file: Path) -> str:
    """A file's path, relative to a folder that holds it."""
    return file.relative_to(folder).as_posix()


def search_path() -> Path | None:
    """The folder of this environment's ``mpi-dcasgd``, where compute nodes find it, too."""
    folder = Path(sys.executable).parent
    return folder if (folder / "mpi-dcasgd").exists() else None
