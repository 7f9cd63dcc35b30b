"""Make the tuning runs of a study that are left."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TextIO

from mpi_dcasgd.config.study import Study
from mpi_dcasgd.config.tuning import Tuning
from mpi_dcasgd.record.shown import ShownStream
from mpi_dcasgd.record.study_folder import StudyFolder
from mpi_dcasgd.runs.comparison_plan import ComparisonResult
from mpi_dcasgd.runs.study_runs import check_models_of, named, write_job
from mpi_dcasgd.runs.tuning import (
    Choice,
    choose_values,
    has_result,
    left_to_run,
    tell,
    write_choices,
)
from mpi_dcasgd.tools.comparison import Comparison
from mpi_dcasgd.wording import counted


def tune_study(
    study: Study,
    tuning: Tuning,
    folder: StudyFolder,
    begin: Callable[[StudyFolder], Comparison],
    show: TextIO | None,
    only: Sequence[str] | None = None,
) -> list[Choice] | ComparisonResult:
    """Make the tuning runs that have no result, and write down what they choose.

    Args:
        study: The study.
        tuning: Of the study.
        folder: Of its runs.
        begin: Makes what runs them, in a folder.
        show: Stream for one line a run; None for silence.
        only: Names or patterns of tuning runs, for one that makes them beside others; None for all.

    Returns:
        What they choose, once all have a result; else what came of those that were made.

    Raises:
        ConfigError: A name or a pattern fits none.
    """
    mine = {element.name for element in named(tuning.elements, only, str(study.file))}
    left = [run for run in left_to_run(tuning, folder) if run.name in mine]
    if left:
        names = {run.name for run in left}
        elements = [element for element in tuning.elements if element.name in names]
        check_models_of([element.job for element in elements])
        for element in elements:
            write_job(study, element, folder.tuning)
        if show is not None:
            total = counted(len(tuning.elements), "run")
            head = f"tuning: {len(left)} of {total} in {folder.tuning.path}"
            print(head, file=ShownStream(show), flush=True)
        comparison = begin(folder.tuning)
        stopped = False
        try:
            comparison.run(left)
        except KeyboardInterrupt:
            stopped = True
        outcomes = tuple(comparison.outcomes)
        runs = tuple(run.folder for run in left)
        stopped = stopped or comparison.stopped_by is not None
        if stopped or len(outcomes) < len(left) or outcomes[-1].status == "interrupted":
            signum = comparison.stopped_by or signal.SIGINT
            return ComparisonResult(folder, runs, outcomes, None, signum)
        # Their jobs are not compared once more: if the package was updated meanwhile, they have
        # settings that this process does not know.
        if lost := tuple(outcome for outcome in outcomes if not has_result(outcome.run.folder)):
            # Whatever ended them was not their values, and who lacks a run has a smaller budget.
            failed = tuple(
                replace(outcome, status="failed", reason=outcome.reason or "it left no result")
                for outcome in lost
            )
            return ComparisonResult(folder, runs, failed, None, None)
    if only is not None and left_to_run(tuning, folder):
        return ComparisonResult(folder, (), (), None, None)
    choices = choose_values(study, tuning, folder)
    write_choices(tuning, choices, folder)
    if show is not None:
        tell(choices, show)
    return choices
