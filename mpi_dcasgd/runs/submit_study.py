"""Submit what is left of a study: tuning runs, the runs themselves, the report; each waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mpi_dcasgd.config.frozen_study import freeze_study
from mpi_dcasgd.config.study import Study
from mpi_dcasgd.config.study_elements import Element
from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.record.run_folder import plain_name
from mpi_dcasgd.record.slurm_folder import SlurmFolder, Submission
from mpi_dcasgd.record.study_folder import StudyFolder
from mpi_dcasgd.runs.slurm_request import SlurmRequest
from mpi_dcasgd.runs.study_runs import choose, groups, planned, write_job
from mpi_dcasgd.runs.submission import (
    Submitted,
    logs_of,
    refuse_silence,
    search_path,
    site_of,
    within,
)
from mpi_dcasgd.runs.tuning import if_tuned, left_to_run
from mpi_dcasgd.tools.comparison import look_at
from mpi_dcasgd.tools.slurm.render import Work, render
from mpi_dcasgd.tools.slurm.site import Site
from mpi_dcasgd.tools.slurm.states import job_states, max_array_size
from mpi_dcasgd.tools.slurm.submissions import dealt, find_sbatch, sbatch
from mpi_dcasgd.wording import counted

_MAX_ARRAY_SIZE = 1001  # SLURM's default


@dataclass(frozen=True)
class _Array:
    """One array of a study's runs, ready to be submitted.

    Attributes:
        place: Where the runs, the script and its logs lie.
        site: The allocation of one element.
        work: What the script does.
        text: The script.
    """

    place: StudyFolder
    site: Site
    work: Work
    text: str


def submit_study(
    study: Study,
    only: Sequence[str] | None,
    folder: StudyFolder,
    request: SlurmRequest,
    *,
    dry_run: bool,
) -> Submitted:
    """Submit the runs of a study that have no result and are in no queue.

    The tuning runs of a study that is not tuned yet are an array of their own, for which the array
    of its runs waits; each of those works out by itself what was chosen.

    Args:
        study: The study.
        only: Names or patterns of its runs; None for all.
        folder: Of its runs.
        request: Resources, site and limits.
        dry_run: Write and submit nothing.

    Raises:
        ConfigError: A name or a pattern fits none.
        LaunchError: There is no sbatch, or it refuses; or runs are in the queue that would not wait
            for tuning runs.
        RunFolderError: The folder cannot be written.
    """
    names = {element.name for element in choose(study, only)}
    tuning, first = _tuning_left(study, folder, dry_run=dry_run)
    untuned = bool(tuning or first)
    study = if_tuned(study, folder)
    left = [element for element in study.elements if element.name in names]
    if not untuned:
        left = [e for e in left if look_at(planned(e, folder)).state != "finished"]
    busy = _in_queue(folder.slurm, dry_run=dry_run) if left else {}
    waiting = tuple(element.name for element in left if element.name in busy)
    left = [element for element in left if element.name not in busy]
    found = Submitted(
        name=study.name, folder=folder.path, waiting=waiting, array_limit=request.array_limit
    )
    if tuning and busy:
        jobs = " ".join(sorted(set(busy.values())))
        raise LaunchError(
            f"{folder.path}: {counted(len(tuning), 'tuning run')} "
            f"{'has' if len(tuning) == 1 else 'have'} no result, and the runs "
            f"that are in the queue already would not wait for them; scancel {jobs} and submit "
            "again, or wait until they have ended"
        )
    if not left:
        return found
    if not dry_run:
        find_sbatch()
    before = None
    if tuning:
        before = _array("tune", study, tuning, folder, request, dry_run=dry_run)
        found = replace(found, tuning_parts=before.work.parts)
    array = _array("compare", study, left, folder, request, dry_run=dry_run)
    texts = [each.text for each in (before, array) if each is not None]
    found = replace(found, script="\n".join(texts), parts=array.work.parts)
    return found if dry_run else _hand_over(study, folder, before, array, first, found)


def _array(
    kind: Literal["compare", "tune"],
    study: Study,
    elements: Sequence[Element],
    folder: StudyFolder,
    request: SlurmRequest,
    *,
    dry_run: bool,
) -> _Array:
    place = folder.tuning if kind == "tune" else folder
    site = site_of(request, max(element.ranks for element in elements))
    if kind == "tune" and all(element.ranks == 1 for element in elements):
        # What was asked for is the size of the study's runs.
        site = replace(site, nodes=None, tasks_per_node=None, tasks=1)
    _check_size(elements, site)
    names = [[element.name for element in group] for group in groups(elements)]
    work = Work(
        name=f"{study.name}-tuning" if kind == "tune" else study.name,
        file=place.slurm.study_yaml if dry_run else freeze_study(study, place.slurm.path),
        folder=folder.path,
        logs=place.slurm.path,
        parts=dealt(names, _most_elements()),
        tuned=study.tuning is not None,
        search_path=search_path(),
    )
    return _Array(place, site, work, render(kind, site, work))


def _hand_over(
    study: Study,
    folder: StudyFolder,
    before: _Array | None,
    array: _Array,
    first: Sequence[str],
    found: Submitted,
) -> Submitted:
    logs: list[str] = []
    after = list(first)
    if before is not None and study.tuning is not None:
        for element in study.tuning.elements:
            write_job(study, element, folder.tuning)
        note = _submit(before)
        after.append(note.job_id)
        found = replace(found, tuning_id=note.job_id)
        logs += _outputs(before, note, folder)
    if not after:  # else the jobs are known when tuning has chosen
        for element in study.elements:
            write_job(study, element, folder)
    note = _submit(array, after)
    last = replace(array.site, nodes=None, tasks_per_node=None, tasks=1, gpus_per_node=None)
    last = replace(last, time="00:15:00", signal_lead_s=min(array.site.signal_lead_s, 60))
    text = render("report", last, replace(array.work, name=f"{study.name}-report"))
    report = sbatch(folder.slurm.new_script(text, "report"), after=[note.job_id])
    folder.slurm.remember(replace(note, report_id=report))
    logs += [*_outputs(array, note, folder), within(folder.path, folder.run("*").output_log)]
    return replace(found, job_id=note.job_id, report_id=report, logs=tuple(logs))


def _submit(array: _Array, after: Sequence[str] = ()) -> Submission:
    slurm = array.place.slurm
    job_id = sbatch(script := slurm.new_script(array.text), after=after)
    note = Submission(job_id, within(array.place.path, script), array.work.parts)
    slurm.remember(note)  # should the next be refused, this is not forgotten
    return note


def _outputs(array: _Array, note: Submission, folder: StudyFolder) -> tuple[str, ...]:
    log = array.work.logs / f"{plain_name(array.work.name)}-{note.job_id}_*.out"
    return logs_of(array.site, within(folder.path, log))


def _check_size(elements: Sequence[Element], site: Site) -> None:
    total = site.total_tasks
    large = [e for e in elements if total is not None and e.ranks > total]
    if large:
        raise LaunchError(
            f"{large[0].name} needs {counted(large[0].ranks, 'rank')}, and the allocation would "
            f"have {counted(total or 0, 'task')}; ask for more with --nodes and "
            "--tasks-per-node, or leave runs out with --only"
        )


def _most_elements() -> int:
    size = max_array_size()
    if size == 0:
        raise LaunchError(
            "this SLURM takes no job arrays (MaxArraySize is 0); submit the runs' jobs one by one, "
            "or call mpi-dcasgd compare in a batch script of your own"
        )
    return size or _MAX_ARRAY_SIZE


def _tuning_left(
    study: Study, folder: StudyFolder, *, dry_run: bool
) -> tuple[list[Element], list[str]]:
    """The tuning runs to be submitted, and the arrays in the queue that make others."""
    if study.tuning is None or not (left := left_to_run(study.tuning, folder)):
        return [], []
    busy = _in_queue(folder.tuning.slurm, dry_run=dry_run)
    wanted = {run.name for run in left} - busy.keys()
    jobs = {job_id for name, job_id in busy.items() if any(run.name == name for run in left)}
    return [e for e in study.tuning.elements if e.name in wanted], sorted(jobs)


def _in_queue(slurm: SlurmFolder, *, dry_run: bool) -> dict[str, str]:
    """Runs that submissions from before may still make, each with the number of its array."""
    before = slurm.submissions()
    answer = job_states(each.job_id for each in before)
    if not dry_run:
        refuse_silence(slurm, answer)
    busy: dict[str, str] = {}
    for each in before:
        for index in range(len(each.parts)):
            state = answer.states.get(f"{each.job_id}_{index}")
            if state and state.active:
                busy |= dict.fromkeys(each.names_of(index), each.job_id)
    return busy
