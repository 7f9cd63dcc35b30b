"""Tune a study: make its tuning runs, choose by them, and give its runs what was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TextIO

from mpi_dcasgd.config.load import Override
from mpi_dcasgd.config.study import Study
from mpi_dcasgd.config.tuning import Candidate, TunedGroup, Tuning
from mpi_dcasgd.errors import ConfigError, RunFolderError
from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.shown import ShownStream
from mpi_dcasgd.record.study_folder import StudyFolder
from mpi_dcasgd.runs.study_runs import planned
from mpi_dcasgd.runs.tuning_ties import Scored, Tie, best_of
from mpi_dcasgd.tools.comparison import PlannedRun, look_at
from mpi_dcasgd.wording import counted


@dataclass(frozen=True)
class Choice:
    """Choice of tuning for one algorithm.

    Attributes:
        group: The algorithm and its tuning runs.
        values: The values of the best run; None if no run has won.
        score: Of that run: the final value on the split, or the time to the target in seconds.
        metric: The name of what the score is of, with the split.
        shown: The score in words.
        edge: Keys of which the chosen value lies at an end of their grid.
        diverged: Runs without a result.
        cut_off: Runs that did not reach the target in time.
        tie: What decided, where several runs had the best score.
    """

    group: TunedGroup
    values: tuple[Override, ...] | None
    score: float | None
    metric: str
    shown: str
    edge: tuple[str, ...]
    diverged: int
    cut_off: int
    tie: Tie | None = None

    @property
    def name(self) -> str:
        """The algorithm, and the number of workers that it was tuned for."""
        group = self.group
        return (
            group.label if group.for_all else f"{group.label}, {counted(group.workers, 'worker')}"
        )

    def text(self) -> str:
        """Say what was chosen, or why nothing was."""
        lost = [f"{self.diverged} diverged"] if self.diverged else []
        lost += [f"{self.cut_off} did not reach the target"] if self.cut_off else []
        runs = (
            f"{counted(len(self.group.candidates), 'run')}{''.join(f', {line}' for line in lost)}"
        )
        if self.values is None:
            return f"{self.name}: nothing to choose ({runs}); left out of the comparison"
        values = ", ".join(f"{key} {value}" for key, value in self.values)
        edge = f"; at the edge of its grid: {', '.join(self.edge)}" if self.edge else ""
        tie = f"; {self.tie.text(len(self.group.candidates))}" if self.tie else ""
        return f"{self.name}: {values} ({self.metric} {self.shown}; {runs}){tie}{edge}"

    def as_recorded(self) -> dict[str, Any]:
        """An entry of ``chosen`` or of ``left_out`` in tuning.json."""
        group = self.group
        return {
            "label": group.label,
            "algorithm": group.algorithm,
            "workers": None if group.for_all else group.workers,
            "runs": len(group.candidates),
            "values": dict(self.values or ()),
            "score": self.score,
            "metric": self.metric,
            "edge": list(self.edge),
            "diverged": self.diverged,
            "cut_off": self.cut_off,
            "tied": self.tie.settings if self.tie else 0,
            "tie_by_final": self.tie is not None and self.tie.by_final,
            "grid": {key: list(values) for key, values in group.grid.items()},
        }


def tuning_runs(tuning: Tuning, folder: StudyFolder) -> list[PlannedRun]:
    """The command and the folder of each tuning run of the study in a folder."""
    return [planned(element, folder.tuning) for element in tuning.elements]


def left_to_run(tuning: Tuning, folder: StudyFolder) -> list[PlannedRun]:
    """The tuning runs that have no result: one that diverged has one, and is not repeated."""
    return [run for run in tuning_runs(tuning, folder) if not _is_done(run)]


def has_diverged(folder: RunFolder) -> bool:
    """Return whether a run ended because its gradients were no numbers any more."""
    summary = folder.summary(lenient=True)
    reason = str(summary.get("reason", ""))
    return summary.get("status") == "failed" and reason.startswith("NonFiniteError")


def has_result(folder: RunFolder) -> bool:
    """Return whether a run completed or diverged: both count when values are chosen."""
    return folder.is_finished() or has_diverged(folder)


def _is_done(run: PlannedRun) -> bool:
    """Return whether a run of this very job has a result."""
    return look_at(run).state in ("finished", "unfinished") and has_result(run.folder)


def choose_values(study: Study, tuning: Tuning, folder: StudyFolder) -> list[Choice]:
    """Choose the best run of each algorithm, by the rule of ``tune.by``.

    Args:
        study: The study, whose targets count.
        tuning: Of the study.
        folder: Of the study; all tuning runs have a result.

    Raises:
        ConfigError: A run has no validation split to be chosen by.
        RunFolderError: The records of a run are damaged.
    """
    return [_choose(study, tuning, group, folder.tuning) for group in tuning.groups]


def _choose(study: Study, tuning: Tuning, group: TunedGroup, folder: StudyFolder) -> Choice:
    timed = tuning.settings.by == "time-to-target"
    measures, split = Measures(), "validation"
    scored: list[Scored] = []
    diverged = cut_off = 0
    for candidate in group.candidates:
        run = folder.run(candidate.element.name)
        summary = run.summary(lenient=True)
        if not run.is_finished():
            diverged += 1
            continue
        measures = Measures.recorded(summary)
        split = _split(summary, candidate, measures)
        lossless = summary.get(f"{split}_loss", 0.0) is None  # NaN: its error counts for nothing
        if lossless or not _is_number(summary.get(f"{split}_{measures.primary}")):
            diverged += 1
            continue
        time_s = _time_to_target(study, run, measures, split) if timed else None
        cap = tuning.settings.cap_s
        if timed and (time_s is None or (cap is not None and time_s > cap)):
            cut_off += 1
            continue
        scored.append(Scored(candidate, float(summary[f"{split}_{measures.primary}"]), time_s))
    best, tie = best_of(scored, measures)
    values = None if best is None else best.candidate.values
    metric = f"time to target, {split}" if timed else f"{split} {measures.primary}"
    shown = "" if best is None else f"{best.score:.4g} s"
    if best is not None and not timed:
        shown = measures.shown(measures.primary, best.score)
    return Choice(
        group=group,
        values=values,
        score=None if best is None else best.score,
        metric=metric,
        shown=shown,
        edge=_edges(group.grid, values or ()),
        diverged=diverged,
        cut_off=cut_off,
        tie=tie,
    )


def _split(summary: Mapping[str, Any], candidate: Candidate, measures: Measures) -> str:
    if f"validation_{measures.primary}" in summary:
        return "validation"
    if candidate.element.job.data.name == "task":  # the task has no samples to set apart
        return "test"
    raise ConfigError(
        f"tuning run {candidate.element.name}",
        [
            "its data have no validation split, so that tune would choose on the test split; set "
            "data.validation"
        ],
    )


def _time_to_target(study: Study, run: RunFolder, measures: Measures, split: str) -> float | None:
    """Seconds until the study's target was first reached; None if it never was."""
    if study.target is not None:
        metric, target = measures.primary, study.target
    else:
        metric, target = "error", float(study.target_error or 0.0)
        measures = replace(measures, higher_is_better=False)
    for row in run.metrics():
        value = row.get(f"{split}_{metric}") if row["event"] == "evaluation" else None
        if value is not None and _is_number(value) and measures.reached(value, target):
            return float(row["time_s"])
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _edges(grid: Mapping[str, Sequence[Any]], values: Sequence[Override]) -> tuple[str, ...]:
    """Keys of which the chosen value is the least or the largest of several numbers."""
    found = []
    for key, value in values:
        numbers = [one for one in grid[key] if _is_number(one) and not isinstance(one, bool)]
        several = 1 < len(numbers) == len(grid[key])
        if several and value in (min(numbers), max(numbers)):
            found.append(key)
    return tuple(found)


def tuned_study(study: Study, choices: Sequence[Choice]) -> Study:
    """Return a study whose runs have the chosen values; algorithms without any are left out.

    Raises:
        ConfigError: No algorithm is left.
    """
    if study.tuning is None:
        return study
    tuning = study.tuning
    chosen = {id(choice.group): choice.values for choice in choices}
    elements = []
    for element in study.elements:
        values = chosen[id(tuning.group_of(element))]
        if values is not None:
            elements.append(tuning.tuned(element, values))
    if not elements:
        raise ConfigError(
            str(study.file),
            ["tune: nothing is left to compare", *(choice.text() for choice in choices)],
        )
    return replace(study, elements=tuple(elements))


def if_tuned(study: Study, folder: StudyFolder) -> Study:
    """Return a study with what was chosen, if all its tuning runs have a result; else as it is."""
    if study.tuning is None or left_to_run(study.tuning, folder):
        return study
    return tuned_study(study, choose_values(study, study.tuning, folder))


def require_tuned(study: Study, folder: StudyFolder, what: str) -> Study:
    """Return a study with what was chosen, for work that shares out its runs.

    Args:
        study: The study.
        folder: Of its runs.
        what: What needs it, for the message.

    Raises:
        ConfigError: Tuning runs are left.
    """
    if study.tuning is not None and (left := left_to_run(study.tuning, folder)):
        raise ConfigError(
            str(study.file),
            [
                f"tune: {counted(len(left), 'tuning run')} "
                f"{'has' if len(left) == 1 else 'have'} no result, and {what} needs what "
                f"they choose; first make them: mpi-dcasgd compare {study.file} --tune-only "
                f"-o {folder.path} (mpi-dcasgd submit makes them under SLURM, before the others)"
            ],
        )
    return if_tuned(study, folder)


def write_choices(tuning: Tuning, choices: Sequence[Choice], folder: StudyFolder) -> None:
    """Write tuning.json, the record of the choice.

    Raises:
        RunFolderError: It cannot be written.
    """
    settings = tuning.settings
    try:
        folder.write_tuning(
            {
                "seed": settings.seed,
                "by": settings.by,
                "cap_s": settings.cap_s,
                "simulated": any(element.simulated for element in tuning.elements),
                "runs": len(tuning.elements),
                "chosen": [c.as_recorded() for c in choices if c.values is not None],
                "left_out": [c.as_recorded() for c in choices if c.values is None],
            }
        )
    except OSError as error:
        where = folder.tuning_json
        raise RunFolderError(f"{where}: cannot be written: {error.strerror}") from error


def tell(choices: Sequence[Choice], stream: TextIO) -> None:
    """Say what was chosen, a line for each algorithm."""
    for choice in choices:
        print(f"tuned {choice.text()}", file=ShownStream(stream), flush=True)
