"""Check a job or a study, write its batch script, hand it to SLURM."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from mpi_dcasgd.config.frozen_study import freeze_study
from mpi_dcasgd.config.load import job_as_text, make_job, parse_overrides, read_mapping
from mpi_dcasgd.config.plan import check_ranks
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.study import Study, make_study
from mpi_dcasgd.config.study_elements import Element
from mpi_dcasgd.errors import ConfigError, LaunchError, RunFolderError
from mpi_dcasgd.record.atomic import write_atomic
from mpi_dcasgd.record.run_files import RUNS
from mpi_dcasgd.record.run_folder import RunFolder, plain_name
from mpi_dcasgd.record.run_lock import holder, is_held
from mpi_dcasgd.record.slurm_folder import SlurmFolder, Submission
from mpi_dcasgd.record.study_folder import StudyFolder
from mpi_dcasgd.runs.slurm_request import SlurmRequest
from mpi_dcasgd.runs.study_runs import choose, groups, planned, write_job
from mpi_dcasgd.runs.tuning import require_tuned
from mpi_dcasgd.tools.comparison import look_at
from mpi_dcasgd.tools.slurm.directives import sets
from mpi_dcasgd.tools.slurm.render import Work, render
from mpi_dcasgd.tools.slurm.site import Site
from mpi_dcasgd.tools.slurm.site_files import find_site_file
from mpi_dcasgd.tools.slurm.states import Answer, job_states, max_array_size
from mpi_dcasgd.tools.slurm.submissions import dealt, find_sbatch, sbatch

_MAX_ARRAY_SIZE = 1001  # SLURM's default


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """Jobs that were submitted, or with ``dry_run`` would be.

    Attributes:
        name: The name of the job or study.
        folder: The run folder, or the folder of the study's runs; absolute.
        job_id: SLURM's number; None if nothing was submitted.
        report_id: The job that writes a study's report, submitted after the others.
        script: The text of the script; empty if no run is left to submit.
        logs: Files that the jobs print into, relative to ``folder``; may be patterns.
        parts: The names of the runs of each element of a study's array; empty for a job.
        waiting: The names of runs that were left out, for they are in the queue already.
        array_limit: Elements of the array that run at a time; None for all.
    """

    name: str
    folder: Path
    job_id: str | None = None
    report_id: str | None = None
    script: str = ""
    logs: tuple[str, ...] = ()
    parts: tuple[tuple[str, ...], ...] = ()
    waiting: tuple[str, ...] = ()
    array_limit: int | None = None

    @property
    def job_ids(self) -> tuple[str, ...]:
        """SLURM's numbers of all jobs that were submitted."""
        return tuple(job_id for job_id in (self.job_id, self.report_id) if job_id is not None)


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
    study = require_tuned(study, folder, "a job array")
    return _submit_study(study, choose(study, only), folder, request, dry_run=dry_run)


def _submit_job(
    job: Job, out: Path | None, request: SlurmRequest, *, threads: bool, dry_run: bool
) -> Submitted:
    """Submit a job; ``threads`` says whether it sets them itself."""
    mode = job.mode
    site = _site(request, 1 if mode == "sequential" else None)
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
        search_path=_search_path(),
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
    slurm.remember(Submission(job_id, _within(folder, script)))
    logs = _logs(site, _within(folder, slurm.path / f"{plain_name(job.name)}-{job_id}.out"))
    return Submitted(name=job.name, folder=folder, job_id=job_id, script=text, logs=logs)


def _new_folder(job: Job, *, dry_run: bool) -> Path:
    if dry_run:
        return RUNS / f"{job.name}-{job.algorithm}-TIME"
    now = datetime.now().astimezone()
    return RunFolder.create(None, name=job.name, algorithm=job.algorithm, now=now).path


def _submit_study(
    study: Study,
    chosen: Sequence[Element],
    folder: StudyFolder,
    request: SlurmRequest,
    *,
    dry_run: bool,
) -> Submitted:
    out, slurm = folder.path, folder.slurm
    left = [e for e in chosen if look_at(planned(e, folder)).state != "finished"]
    busy = _in_queue(slurm, dry_run=dry_run) if left else set()
    waiting = tuple(element.name for element in left if element.name in busy)
    left = [element for element in left if element.name not in busy]
    found = Submitted(name=study.name, folder=out, waiting=waiting, array_limit=request.array_limit)
    if not left:
        return found
    site = _site(request, max(element.ranks for element in left))
    _check_size(left, site)
    names = [[element.name for element in group] for group in groups(left)]
    if not dry_run:
        find_sbatch()
    work = Work(
        name=study.name,
        file=slurm.study_yaml if dry_run else freeze_study(study, slurm.path),
        folder=out,
        logs=slurm.path,
        parts=dealt(names, _most_elements()),
        search_path=_search_path(),
    )
    text = render("compare", site, work)
    found = replace(found, script=text, parts=work.parts)
    if dry_run:
        return found
    for element in study.elements:
        write_job(study, element, folder)
    array = sbatch(script := slurm.new_script(text))
    submission = Submission(array, _within(out, script), work.parts)
    slurm.remember(submission)  # should the report be refused, this is not forgotten
    last = replace(site, nodes=None, tasks_per_node=None, tasks=1, gpus_per_node=None)
    last = replace(last, time="00:15:00", signal_lead_s=min(site.signal_lead_s, 60))
    text = render("report", last, replace(work, name=f"{study.name}-report"))
    report = sbatch(slurm.new_script(text, "report"), after=array)
    slurm.remember(replace(submission, report_id=report))
    outputs = _logs(site, _within(out, slurm.path / f"{plain_name(study.name)}-{array}_*.out"))
    own = _within(out, folder.run("*").output_log)
    return replace(found, job_id=array, report_id=report, logs=(*outputs, own))


def _logs(site: Site, log: str) -> tuple[str, ...]:
    """The log of the script, unless the user has it print elsewhere."""
    return () if sets(site.extra, "-o", "--output") else (log,)


def _site(request: SlurmRequest, ranks: int | None) -> Site:
    return request.site(ranks, _site_file(request.site_env or os.environ.get("SITE")))


def _site_file(choice: str | None) -> str | None:
    return None if choice is None else str(find_site_file(choice))


def _check_size(elements: Sequence[Element], site: Site) -> None:
    total = site.total_tasks
    large = [e for e in elements if total is not None and e.ranks > total]
    if large:
        raise LaunchError(
            f"{large[0].name} needs {large[0].ranks} ranks, and the allocation would have {total} "
            "tasks; ask for more with --nodes and --tasks-per-node, or leave runs out with --only"
        )


def _most_elements() -> int:
    size = max_array_size()
    if size == 0:
        raise LaunchError(
            "this SLURM takes no job arrays (MaxArraySize is 0); submit the runs' jobs one by one, "
            "or call mpi-dcasgd compare in a batch script of your own"
        )
    return size or _MAX_ARRAY_SIZE


def _in_queue(slurm: SlurmFolder, *, dry_run: bool) -> set[str]:
    """Names of the runs that submissions from before may still make."""
    before = slurm.submissions()
    answer = job_states(each.job_id for each in before)
    if not dry_run:
        _refuse_silence(slurm, answer)
    busy: set[str] = set()
    for each in before:
        for index in range(len(each.parts)):
            state = answer.states.get(f"{each.job_id}_{index}")
            if state and state.active:
                busy.update(each.names_of(index))
    return busy


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
    _refuse_silence(slurm, answer)


def _refuse_silence(slurm: SlurmFolder, answer: Answer) -> None:
    """Two jobs must not work in one folder: not to know of the first is no reason for a second."""
    if answer.silence:
        raise LaunchError(
            f"{slurm.path.parent}: SLURM does not say whether the jobs that were submitted for "
            f"this folder are still in the queue ({answer.silence}); nothing was submitted, try "
            "again later"
        )


def _within(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix()


def _search_path() -> Path | None:
    """The folder of this environment's ``mpi-dcasgd``, where compute nodes find it, too."""
    folder = Path(sys.executable).parent
    return folder if (folder / "mpi-dcasgd").exists() else None
