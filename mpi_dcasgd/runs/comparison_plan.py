"""The plan of a comparison, and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpi_dcasgd.config.study import Study
from mpi_dcasgd.config.study_elements import Element
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.study_folder import StudyFolder
from mpi_dcasgd.runs.tuning import left_to_run
from mpi_dcasgd.tools.comparison import Outcome, PlannedRun, look_at
from mpi_dcasgd.wording import counted

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
        tuning_runs: The tuning runs that come first, finished ones among them.
    """

    study: Study
    folder: StudyFolder
    elements: tuple[Element, ...]
    runs: tuple[PlannedRun, ...]
    tuning_runs: tuple[PlannedRun, ...] = ()

    def overview(self) -> str:
        """Say of each run how large it is, and whether it is there already."""
        lines = self._tuning_overview()
        lines.append(
            f"{self.study.name}: {counted(len(self.runs), 'run')} of {self.study.job_file} in "
            f"{self.folder.path}"
        )
        return "\n".join(lines + _lines_of(self.runs, self.elements))

    def _tuning_overview(self) -> list[str]:
        tuning = self.study.tuning
        if tuning is None:
            return []
        each = len(tuning.groups[0].candidates)
        lines = [
            f"tuning: {counted(len(self.tuning_runs), 'run')} in {self.folder.tuning.path}"
            f", {each} for each of {len(tuning.groups)}, seed {tuning.settings.seed}"
        ]
        lines += _lines_of(self.tuning_runs, tuning.elements, tuning.tried())
        if left_to_run(tuning, self.folder):
            lines.append("the values of the job below are replaced by those that are chosen")
        return lines


def _lines_of(
    runs: Sequence[PlannedRun], elements: Sequence[Element], tried: Sequence[str] = ()
) -> list[str]:
    """A line for each run: how large it is, what it tries, and whether it is there already."""
    lines = []
    width = max((len(run.name) for run in runs), default=0)
    for number, (run, element) in enumerate(zip(runs, elements, strict=True)):
        size = "1 process" if run.ranks is None else counted(run.ranks, "rank")
        size = "simulated" if element.simulated else size
        job = element.job
        what = tried[number] if tried else f"lr {job.lr:g}"
        lines.append(
            f"  {run.name:<{width}}  {size:>9}  {counted(job.epochs, 'epoch')}, "
            f"batch_size {job.batch_size}, {what}  {look_at(run).state}"
        )
    return lines


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
