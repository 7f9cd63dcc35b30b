"""Check a job or a study, write its batch script, hand it to SLURM."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from mpi_dcasgd.config.load import job_as_text, make_job, parse_overrides, read_mapping
from mpi_dcasgd.config.plan import check_ranks
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.study import make_study
from mpi_dcasgd.errors import ConfigError, LaunchError, RunFolderError
from mpi_dcasgd.record.atomic import write_atomic
from mpi_dcasgd.record.run_files import RUNS
from mpi_dcasgd.record.run_folder import RunFolder, plain_name
from mpi_dcasgd.record.run_lock import holder, is_held
from mpi_dcasgd.record.slurm_folder import SlurmFolder, Submission
from mpi_dcasgd.record.study_folder import StudyFolder
from mpi_dcasgd.runs.slurm_request import SlurmRequest
from mpi_dcasgd.runs.submission import (
    Submitted,
    logs_of,
    refuse_silence,
    search_path,
    site_of,
    within,
)
from mpi_dcasgd.runs.submit_study import submit_study
from mpi_dcasgd.tools.slurm.render import Work, render
from mpi_dcasgd.tools.slurm.states import job_states
from mpi_dcasgd.tools.slurm.submissions import find_sbatch, sbatch


def submit(
    file: Path | str,
    overrides: Sequence[str] = (),
    *,
    request: SlurmRequest | None = None,
    out: Path | str | None = None,
    only: Sequence[str] | None = None,
    dry_run: bool = False,
) -> Submitted:
    """Submit a job, or what is left of a study.

    Args:
        file: The job file, or the study file.
        overrides: ``key=value`` words for a job.
        request: Resources, site and limits; None for the defaults.
        out: The run folder, or the folder of a study's runs; what is there is resumed. None for a
            new one in ``runs``, and for ``runs/<study>``.
        only: Names or patterns of a study's runs; None for all.
        dry_run: Write and submit nothing.

    Returns:
        The numbers of the jobs, the folder and the script.

    Raises:
        ConfigError: The file, or the description of the site, is wrong; nothing was submitted.
        LaunchError: The number of ranks is wrong, there is no sbatch, or it refuses.
        RunFolderError: The folder holds a finished run, or cannot be written.

    Example:
        A job on two nodes::

            request = SlurmRequest(nodes=2, tasks_per_node=4, partition="gpu")
            print(submit("jobs/digits.yaml", ["lr=0.2"], request=request).job_id)
    """
    file, request = Path(file), request or SlurmRequest()
    place = None if out is None else Path(out)
    mapping = read_mapping(file)
    if "algorithms" not in mapping:
        job = make_job(mapping, file, overrides)
        if only:
            raise ConfigError("command line", ["--only: applies to studies; this is a job"])
        keys = {*mapping, *dict(parse_overrides(overrides)[0])}
        return _submit_job(job, place, request, threads="threads" in keys, dry_run=dry_run)
    if overrides:
        raise ConfigError(
            "command line", [f"{overrides[0]}: a study's own `set:` changes the jobs of its runs"]
        )
    study = make_study(mapping, file)
    folder = StudyFolder((place or RUNS / study.name).absolute())
    return submit_study(study, only, folder, request, dry_run=dry_run)


def _submit_job(
    job: Job, out: Path | None, request: SlurmRequest, *, threads: bool, dry_run: bool
) -> Submitted:
    """Submit a job; ``threads`` says whether it sets them itself."""
    mode = job.mode
    site = site_of(request, 1 if mode == "sequential" else None)
    if mode != "sequential":
        check_ranks(job, site.total_tasks)
    if site.cpus_per_task > 1 and not threads:
        job = replace(job, threads=site.cpus_per_task)
    if out is not None and RunFolder(out).is_finished():
        raise RunFolderError(f"{out}: holds a finished run; name another folder")
    if not dry_run:
        find_sbatch()
        if out is not None:
            _refuse_active(out)
    folder = (out or _new_folder(job, dry_run=dry_run)).absolute()
    slurm = SlurmFolder(folder)
    work = Work(
        name=job.name,
        file=slurm.job_yaml,
        folder=folder,
        logs=slurm.path,
        search_path=search_path(),
    )
    text = render("sync" if mode == "synchronous" else "async", site, work)
    if dry_run:
        return Submitted(name=job.name, folder=folder, script=text)
    script = slurm.new_script(text)
    write_atomic(slurm.job_yaml, job_as_text(job).encode())
    try:
        job_id = sbatch(script)
    except LaunchError:
        if out is None:  # nobody will ever use it
            shutil.rmtree(folder)
        raise
    slurm.remember(Submission(job_id, within(folder, script)))
    logs = logs_of(site, within(folder, slurm.path / f"{plain_name(job.name)}-{job_id}.out"))
    return Submitted(name=job.name, folder=folder, job_id=job_id, script=text, logs=logs)


def _new_folder(job: Job, *, dry_run: bool) -> Path:
    if dry_run:
        return RUNS / f"{job.name}-{job.algorithm}-TIME"
    now = datetime.now().astimezone()
    return RunFolder.create(None, name=job.name, algorithm=job.algorithm, now=now).path


def _refuse_active(folder: Path) -> None:
    slurm = SlurmFolder(folder)
    if is_held(folder):
        raise LaunchError(
            f"{folder}: a run is at work in this folder ({holder(folder)}); wait for its end, or "
            "name another folder"
        )
    slurm.refuse_strangers()
    answer = job_states(each.job_id for each in slurm.submissions())
    for job_id, state in answer.states.items():
        if state.active:
            raise LaunchError(
                f"{folder}: job {job_id} of this folder is {state.state}; wait for it, or "
                f"scancel {job_id}"
            )
    refuse_silence(slurm, answer)
