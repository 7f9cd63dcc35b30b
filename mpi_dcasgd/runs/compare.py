"""Run a study, or what is left of it, and compare its runs."""

from __future__ import annotations

import signal
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

from pydantic import Field

from mpi_dcasgd.config.load import read_mapping
from mpi_dcasgd.config.study import Study, load_study, make_study
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.record.run_files import RUNS
from mpi_dcasgd.record.shown import ShownStream
from mpi_dcasgd.record.study_folder import StudyFolder
from mpi_dcasgd.runs.arguments import check_arguments, several
from mpi_dcasgd.runs.comparison_plan import ComparisonPlan, ComparisonResult
from mpi_dcasgd.runs.given import GivenTask, brought_by, is_task, section_of, sections_with
from mpi_dcasgd.runs.in_process import make_in_process
from mpi_dcasgd.runs.jobs import plain
from mpi_dcasgd.runs.study_runs import check_models_of, choose, part_of, planned, write_job
from mpi_dcasgd.runs.study_tuning import tune_study
from mpi_dcasgd.runs.tuning import (
    if_tuned,
    require_tuned,
    tuned_study,
    tuning_runs,
)
from mpi_dcasgd.shell import shell_words
from mpi_dcasgd.tools.comparison import Comparison
from mpi_dcasgd.wording import counted

if TYPE_CHECKING:
    from mpi_dcasgd.reporting.write import Report


@dataclass(frozen=True)
class StudyReport:
    """The report of the runs of a study that are there.

    Attributes:
        report: None if no run is there.
        missing: The names of the runs that are not finished.
    """

    report: Report | None
    missing: tuple[str, ...]


def plan_comparison(
    study: Study | Path | str,
    out: Path | str | None = None,
    *,
    task: GivenTask | None = None,
    only: str | Sequence[str] | None = None,
    part: tuple[int, int] | None = None,
) -> ComparisonPlan:
    """Plan the runs that `compare` would make, and start none.

    Args:
        study: The study, or its file.
        out: Folder of its runs; None for ``runs/<study>``.
        task: A task of one's own in place of that of the study's job, as in ``load_job``. Every run
            is a process of its own, so that a script's or a notebook's own class does not serve.
        only: Names or patterns of runs, or one; None for all.
        part: ``(i, n)`` for the i-th of n parts of the runs, counted from 0.

    Raises:
        ConfigError: The study, or the job of any of its runs, is wrong.
    """
    check_arguments(plan_comparison, locals())
    study = _loaded(study, task)
    folder = _folder(study, out)
    names = _names(study, only)
    return _planned(if_tuned(study, folder), folder, names, part)


def compare(
    study: Study | Path | str,
    out: Path | str | None = None,
    *,
    task: GivenTask | None = None,
    only: str | Sequence[str] | None = None,
    part: tuple[int, int] | None = None,
    rerun: bool = False,
    report: bool = True,
    tune_only: bool = False,
    tuned: bool = False,
    in_process: bool = False,
    launcher: str | None = None,
    mpirun: str | None = None,
    mpirun_args: str | Sequence[str] = (),
    restarts: Annotated[int, Field(ge=0)] = 0,
    show: TextIO | None = None,
) -> ComparisonResult:
    """Run a study and compare its runs; finished runs are kept, unfinished ones resumed.

    A run that fails does not keep the others from running. A signal that asks the run at work to
    stop (SIGINT, SIGTERM, SIGHUP, SIGUSR1) stops the comparison after it; no report is written
    then.

    Args:
        study: The study, or its file.
        out: Folder of its runs; None for ``runs/<study>``.
        task: A task of one's own in place of that of the study's job, as in ``load_job``. Every run
            is a process of its own, so that a script's or a notebook's own class does not serve.
        only: Names or patterns of runs, or one, with ``tune_only`` of tuning runs; None for all.
        part: ``(i, n)`` for the i-th of n parts of the runs, counted from 0.
        rerun: Run again what is finished, too; the run before is kept aside.
        report: Write a report. Without one, other comparisons may work on other runs of the study
            at the same time.
        tune_only: Make the tuning runs and choose, and none of the runs that are compared. With
            ``only``, and runs left that others make, nothing is chosen yet.
        tuned: Refuse a study of which tuning runs are left, instead of making them.
        in_process: Make runs that need no ranks in this process, which spares each of them the
            start of Python and PyTorch: the longest part of a small simulated run.
        launcher: ``auto``, ``mpirun`` or ``srun``; None for the variable MPI_DCASGD_LAUNCHER.
        mpirun: Path of the mpirun to use; None for this Python's.
        mpirun_args: Further arguments for the launcher; a text is split as a shell does.
        restarts: How often a run that ends early is started again, to resume from its checkpoint;
            not after a mistake in its settings, nor when it diverges.
        show: Stream for one line a run; None for silence.

    Returns:
        The outcomes and the report.

    Raises:
        ConfigError: The study, or the job of any of its runs, is wrong; nothing was started.
        LaunchError: There is no launcher.
        RunFolderError: The folder cannot be used, or another comparison is at work in it.
        ReportWithoutPlotsError: All runs were made and the report was written, but there is no
            matplotlib for its plots.

    Example:
        Two algorithms on two seeds, then the table::

            result = compare("jobs/compare_digits.yaml", "runs/digits")
            print(result.report.table)
    """
    check_arguments(compare, locals())
    if isinstance(mpirun_args, str):
        mpirun_args = shell_words(mpirun_args, "compare: mpirun_args")
    only = None if only is None else several(only)
    study = _loaded(study, task)
    folder = _folder(study, out)
    if tune_only and study.tuning is None:
        raise ConfigError(str(study.file), ["tune: missing; there is nothing to tune"])
    names = set() if tune_only else _names(study, only)
    if study.tuning is not None:
        if part is not None or tuned:
            what = "this" if part is None else "a part of the runs"
            require_tuned(study, folder, what)

        def begin(where: StudyFolder) -> Comparison:
            return Comparison(
                where,
                show,
                mpirun,
                mpirun_args,
                launcher=launcher,
                beside_others=tune_only and not report,
                restarts=restarts,
            )

        if in_process:
            runs = tuning_runs(study.tuning, folder)
            pairs = list(zip(study.tuning.elements, runs, strict=True))
            make_in_process(study, pairs, folder.tuning, show)
        mine = only if tune_only else None
        chosen = tune_study(study, study.tuning, folder, begin, show, mine)
        if isinstance(chosen, ComparisonResult):
            return chosen
        if tune_only:
            return ComparisonResult(folder, (), (), None, None)
        study = tuned_study(study, chosen)
    plan = _planned(study, folder, names, part)
    folders = tuple(run.folder for run in plan.runs)
    if not plan.runs:
        return ComparisonResult(plan.folder, (), (), None, None)
    if in_process:
        pairs = list(zip(plan.elements, plan.runs, strict=True))
        make_in_process(plan.study, pairs, plan.folder, show)
    check_models_of([element.job for element in plan.elements])
    for element in plan.elements:
        write_job(plan.study, element, plan.folder)
    if show is not None:
        head = f"{plan.study.name}: {counted(len(folders), 'run')} in {plan.folder.path}"
        print(head, file=ShownStream(show), flush=True)
    comparison = Comparison(
        plan.folder,
        show,
        mpirun,
        mpirun_args,
        launcher=launcher,
        beside_others=not report,
        restarts=restarts,
    )
    stopped = False
    try:
        comparison.run(plan.runs, rerun=rerun)
    except KeyboardInterrupt:  # between two runs; within one it is the run that is interrupted
        stopped = True
    outcomes = tuple(comparison.outcomes)
    if stopped or len(outcomes) < len(folders) or outcomes[-1].status == "interrupted":
        signum = comparison.stopped_by or signal.SIGINT
        return ComparisonResult(plan.folder, folders, outcomes, None, signum)
    written = _report(plan.study, plan.folder) if report else None
    return ComparisonResult(plan.folder, folders, outcomes, written, None)


def report_study(study: Study | Path | str, out: Path | str | None = None) -> StudyReport:
    """Write the report of a study's runs that are there, and start none.

    Args:
        study: The study, or its file.
        out: Folder of its runs; None for ``runs/<study>``.

    Raises:
        ConfigError: The study is wrong.
        ReportWithoutPlotsError: The report was written, but there is no matplotlib for its plots.
    """
    check_arguments(report_study, locals())
    study = _loaded(study)
    folder = _folder(study, out)
    study = if_tuned(study, folder)
    written = _report(study, folder)
    names = [element.name for element in study.elements]
    missing = tuple(name for name in names if not folder.run(name).is_finished())
    return StudyReport(written, missing)


def _loaded(study: Study | Path | str, task: GivenTask | None = None) -> Study:
    if task is None:
        return study if isinstance(study, Study) else load_study(study)
    path = study.file if isinstance(study, Study) else Path(study)
    mapping = study.mapping if isinstance(study, Study) else read_mapping(path, "study")
    section = plain(section_of("task", task))
    if isinstance(section, Mapping) and str(section.get("name")).startswith("__main__:"):
        raise ConfigError(
            "compare",
            [
                f"task: {section['name']} is of this script or notebook, but every run is a "
                "process of its own; put the class into a module"
            ],
        )
    changes = {"task": section}
    if is_task(task):
        changes |= dict.fromkeys(brought_by(task))
        changes |= {key: plain(section_of(key, v)) for key, v in sections_with(task).items()}
    return make_study({**mapping, "set": {**(mapping.get("set") or {}), **changes}}, path)


def _names(study: Study, only: str | Sequence[str] | None) -> set[str]:
    # Before it is tuned: tuning may leave out an algorithm that is rightly named here.
    return {element.name for element in choose(study, None if only is None else several(only))}


def _planned(
    study: Study, folder: StudyFolder, names: Container[str], part: tuple[int, int] | None
) -> ComparisonPlan:
    chosen = [element for element in study.elements if element.name in names]
    if part is not None:
        index, count = part
        if not 0 <= index < count:
            raise ConfigError("compare", [f"part: got {part}; allowed: (i, n) with 0 <= i < n"])
        chosen = part_of(chosen, index, count)
    runs = tuple(planned(element, folder) for element in chosen)
    first = () if study.tuning is None else tuple(tuning_runs(study.tuning, folder))
    return ComparisonPlan(study, folder, tuple(chosen), runs, first)


def _folder(study: Study, out: Path | str | None) -> StudyFolder:
    return StudyFolder(RUNS / study.name if out is None else out)


def _report(study: Study, folder: StudyFolder) -> Report | None:
    runs = [folder.run(element.name) for element in study.elements]
    there = [run.path for run in runs if run.is_run()]
    if not there:
        return None
    from mpi_dcasgd.runs.report import report  # loads NumPy

    title = f"Comparison: {study.name}"
    return report(
        there,
        folder.report,
        target_error=study.target_error,
        target=study.target,
        title=title,
    )
