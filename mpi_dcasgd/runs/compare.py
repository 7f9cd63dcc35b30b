"""Run a study, or what is left of it, and compare its runs."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from mpi_dcasgd.config.load import read_mapping
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.study import Study, load_study, make_study
from mpi_dcasgd.config.study_elements import Element
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.record.run_folder import RUNS, RunFolder
from mpi_dcasgd.record.shown import ShownStream
from mpi_dcasgd.record.study_folder import StudyFolder
from mpi_dcasgd.runs.given import GivenTask, brought_by, is_task, section_of, sections_with
from mpi_dcasgd.runs.jobs import plain
from mpi_dcasgd.runs.study_runs import choose, part_of, planned, write_job
from mpi_dcasgd.tools.comparison import Comparison, Outcome, PlannedRun, look_at

if TYPE_CHECKING:
    from mpi_dcasgd.reporting.write import Report


@dataclass(frozen=True)
class ComparisonPlan:
    """Runs that `compare` would make.

    Attributes:
        study: The study.
        folder: The folder of its runs, which may not exist yet.
        elements: The runs that were chosen, in the order in which they are run.
        runs: The command and the folder of each of them.
    """

    study: Study
    folder: StudyFolder
    elements: tuple[Element, ...]
    runs: tuple[PlannedRun, ...]

    def overview(self) -> str:
        """Say of each run how large it is, and whether it is there already."""
        lines = [
            f"{self.study.name}: {len(self.runs)} runs of {self.study.job_file} in "
            f"{self.folder.path}"
        ]
        width = max((len(run.name) for run in self.runs), default=0)
        for run, element in zip(self.runs, self.elements, strict=True):
            size = "1 process" if run.ranks is None else f"{run.ranks} ranks"
            size = "simulated" if element.simulated else size
            job = element.job
            lines.append(
                f"  {run.name:<{width}}  {size:>9}  {job.epochs} epochs, "
                f"batch_size {job.batch_size}, lr {job.lr:g}  {look_at(run).state}"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class ComparisonResult:
    """Result of a comparison.

    Attributes:
        folder: The folder of the study's runs.
        runs: The run folders of the runs that were chosen.
        outcomes: One for each of them, up to the one at which the comparison was stopped.
        report: The report, if one was written.
        stopped_by: The signal that stopped the comparison before all runs were made, or None.

    Example:
        >>> ComparisonResult(StudyFolder("runs/study"), (), (), None, None).failed
        ()
    """

    folder: StudyFolder
    runs: tuple[RunFolder, ...]
    outcomes: tuple[Outcome, ...]
    report: Report | None
    stopped_by: int | None

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The runs that failed, with the reasons."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "failed")


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
    only: Sequence[str] | None = None,
    part: tuple[int, int] | None = None,
) -> ComparisonPlan:
    """Plan the runs that `compare` would make, and start none.

    Args:
        study: The study, or its file.
        out: Folder of its runs; None for ``runs/<study>``.
        task: A task of one's own in place of that of the study's job, as in ``load_job``. Every run
            is a process of its own, so that a script's or a notebook's own class does not serve.
        only: Names or patterns of runs; None for all.
        part: ``(i, n)`` for the i-th of n parts of the runs, counted from 0.

    Raises:
        ConfigError: The study, or the job of any of its runs, is wrong.
    """
    study = _loaded(study, task)
    folder = _folder(study, out)
    chosen = choose(study, only)
    if part is not None:
        index, count = part
        if not 0 <= index < count:
            raise ConfigError("compare", [f"part: got {part}; allowed: (i, n) with 0 <= i < n"])
        chosen = part_of(chosen, index, count)
    runs = tuple(planned(element, folder) for element in chosen)
    return ComparisonPlan(study, folder, tuple(chosen), runs)


def compare(
    study: Study | Path | str,
    out: Path | str | None = None,
    *,
    task: GivenTask | None = None,
    only: Sequence[str] | None = None,
    part: tuple[int, int] | None = None,
    rerun: bool = False,
    report: bool = True,
    launcher: str | None = None,
    mpirun: str | None = None,
    mpirun_args: Sequence[str] = (),
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
        only: Names or patterns of runs; None for all.
        part: ``(i, n)`` for the i-th of n parts of the runs, counted from 0.
        rerun: Run again what is finished, too; the run before is kept aside.
        report: Write a report. Without one, other comparisons may work on other runs of the study
            at the same time.
        launcher: ``auto``, ``mpirun`` or ``srun``; None for the variable MPI_DCASGD_LAUNCHER.
        mpirun: Path of the mpirun to use; None for this Python's.
        mpirun_args: Further arguments for the launcher.
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
    plan = plan_comparison(study, out, task=task, only=only, part=part)
    folders = tuple(run.folder for run in plan.runs)
    if not plan.runs:
        return ComparisonResult(plan.folder, (), (), None, None)
    _check_models([element.job for element in plan.elements])
    for element in plan.elements:
        write_job(plan.study, element, plan.folder)
    if show is not None:
        head = f"{plan.study.name}: {len(folders)} runs in {plan.folder.path}"
        print(head, file=ShownStream(show), flush=True)
    comparison = Comparison(
        plan.folder, show, mpirun, mpirun_args, launcher=launcher, beside_others=not report
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
    study = _loaded(study)
    folder = _folder(study, out)
    written = _report(study, folder)
    names = [element.name for element in study.elements]
    missing = tuple(name for name in names if not folder.run(name).is_finished())
    return StudyReport(written, missing)


def _check_models(jobs: Sequence[Job]) -> None:
    """Refuse what would fail in each run's start, before any run is started."""
    if not all(job.model.shapes_known for job in jobs):
        from mpi_dcasgd.config.plan import check_models  # loads PyTorch

        check_models(jobs)


def _loaded(study: Study | Path | str, task: GivenTask | None = None) -> Study:
    if task is None:
        return study if isinstance(study, Study) else load_study(study)
    path = study.file if isinstance(study, Study) else Path(study)
    mapping = study.mapping if isinstance(study, Study) else read_mapping(path, "study")
    section = plain(section_of("task", task))
    if str(section.get("name")).startswith("__main__:"):
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
