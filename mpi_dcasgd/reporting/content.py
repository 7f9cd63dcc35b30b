"""The text of a report: what is said of the runs, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mpi_dcasgd.reporting.closer import NAME as CLOSER
from mpi_dcasgd.reporting.closer import closer_blocks
from mpi_dcasgd.reporting.collect import Collection, RunResult
from mpi_dcasgd.reporting.document import (
    Block,
    Bullets,
    Heading,
    Image,
    Pair,
    Paragraph,
    Table,
    fold,
)
from mpi_dcasgd.reporting.effort import cost_note, cost_table
from mpi_dcasgd.reporting.facts import environment_blocks, run_table, settings_blocks
from mpi_dcasgd.reporting.first_screen import FirstScreen, told_left_out
from mpi_dcasgd.reporting.groups import Group
from mpi_dcasgd.reporting.plots import TO_TARGET, VS_TIME, PlotsUnavailableError
from mpi_dcasgd.reporting.prediction import NOTE as PREDICTION_NOTE
from mpi_dcasgd.reporting.prediction import prediction_table
from mpi_dcasgd.reporting.references import cited
from mpi_dcasgd.reporting.remarks import remarks
from mpi_dcasgd.reporting.table import (
    Matching,
    metrics_table,
    result_table,
    seconds,
    target_table,
    time_table,
)
from mpi_dcasgd.reporting.tasks import Target, TaskRuns
from mpi_dcasgd.reporting.time_to_error import sooner_note, sooner_table
from mpi_dcasgd.reporting.workers import NOTE as UNEQUAL_NOTE
from mpi_dcasgd.reporting.workers import worker_table
from mpi_dcasgd.wording import agreeing, counted

_TARGET_NOTE = (
    "Means are over the runs that reached it, at their first evaluation at or {beyond} it; the"
    " resolution is that of the evaluations. A row in which not all runs reached it looks better"
    " than it is."
)
_SEVERAL_TASKS = (
    "The runs are of different tasks or have different primary metrics. Each task is compared by"
    " itself, and nothing is averaged over several."
)

Pictures = Sequence[tuple[Path, str]]


@dataclass(frozen=True, slots=True)
class Content:
    """Content of a report, part by part.

    Attributes:
        found: The runs.
        parts: Those that finished, by task.
        targets: Results whose times are asked for.
    """

    found: Collection
    parts: Sequence[TaskRuns]
    targets: Sequence[Target]

    def document(
        self,
        title: str,
        pictures: Sequence[Pictures],
        missing: PlotsUnavailableError | None,
        waits: Sequence[Sequence[Block]] = (),
    ) -> list[Block]:
        """The whole report.

        Args:
            title: Empty for the name of the runs' job.
            pictures: Of each part.
            missing: Why there are none, if there are none.
            waits: What is shown of each part's single runs.
        """
        found, several = self.found, len(self.parts) > 1
        first: list[Block] = [Heading(1, title or _title(found))]
        if several:
            first.append(Paragraph(_SEVERAL_TASKS))
            if found.unfinished:
                first.append(Paragraph(told_left_out(found.unfinished)))
        first += [Paragraph(text) for text in self._beside_the_point()]
        below: list[Block] = []
        for number, part in enumerate(self.parts):
            drawn = pictures[number] if number < len(pictures) else ()
            heading = f"{_task_title(part)}: " if several else ""
            first += [] if several else [Paragraph(_overview(part, found))]
            screen = self.first_screen(part)
            first += screen.blocks(heading, () if several else found.unfinished)
            shown = [each for each in drawn if each[0].name.endswith((VS_TIME, TO_TARGET))]
            if shown:
                first.append(Pair(tuple(Image(path, text) for path, text in shown)))
            elif missing is not None:
                first.append(Paragraph(f"{missing}."))
            if note := screen.note():
                first.append(Paragraph(note))
            below += self._part(part, heading, [each for each in drawn if each not in shown])
            if number < len(waits) and waits[number]:
                below += [Heading(2, f"{heading}Who waits, run by run"), *waits[number]]
            below += settings_blocks(part.groups, part.runs, heading)
        below += environment_blocks(found.runs)
        if found.unfinished:
            below += [Heading(2, "Runs that are not in the comparison"), _unfinished(found)]
        if found.runs:
            below += [Heading(2, "Runs"), run_table(found.runs)]
        if references := cited(found.runs):
            below += [Heading(2, "References"), Bullets(tuple(map(str, references)))]
        return first + fold(below)

    def first_screen(self, part: TaskRuns) -> FirstScreen:
        """The verdict on the runs of one task."""
        return FirstScreen.of(part, self._values(part))

    def terminal(self) -> str:
        """The results, with the remarks that they need."""
        lines = []
        for part in self.parts:
            groups = part.groups
            if len(self.parts) > 1:
                lines.append(f"{_task_title(part)}:")
            lines.append(result_table(groups, Matching.of(groups)).to_text())
            for value in self._values(part):
                lines.append(f"until {part.reached(value)}:")
                lines.append(target_table(groups, value).to_text())
            first = remarks(groups, part.runs)[:3]
            lines += [f"- {remark}" for remark in first]
            screen = self.first_screen(part)
            if sentences := screen.sentences():
                lines += ["verdict:", *(f"- {sentence}" for sentence in sentences)]
            lines += [f"- mind: {text}" for text in screen.cautions() if text not in first]
            if note := screen.note():
                lines.append(f"- {note}")
        if len(self.parts) > 1:
            lines.append(f"- {_SEVERAL_TASKS}")
        lines += [f"- {text}" for text in self._beside_the_point()]
        lines += [f"not compared: {u.path} ({u.status}): {u.reason}" for u in self.found.unfinished]
        return "\n".join(lines)

    def _values(self, part: TaskRuns) -> list[float]:
        values = (target.of(part.measures) for target in self.targets)
        return [value for value in values if value is not None]

    def _beside_the_point(self) -> list[str]:
        """A line for each target whose metric is no run's primary one."""
        primaries = ", ".join(dict.fromkeys(part.measures.primary for part in self.parts))
        return [
            f"No time to a target_error is shown, since the primary metric of these runs is"
            f" {primaries}: use target."
            for target in self.targets
            if self.parts and all(target.of(part.measures) is None for part in self.parts)
        ]

    def _part(
        self,
        part: TaskRuns,
        heading: str,
        pictures: Pictures,
    ) -> list[Block]:
        groups = part.groups

        def title(text: str) -> Heading:
            return Heading(2, f"{heading}{text}")

        blocks: list[Block] = [title("Result")]
        if heading:
            blocks.append(Paragraph(_overview(part, None)))
        blocks.append(result_table(groups, Matching.of(groups)))
        blocks.append(Paragraph(_table_note(groups)))
        blocks.append(Bullets(tuple(remarks(groups, part.runs))))
        if (others := metrics_table(groups)) is not None:
            blocks += [title("Metrics of the final weights"), others]
        if (foretold := prediction_table(groups)) is not None:
            blocks += [title("Predicted and measured"), foretold, Paragraph(PREDICTION_NOTE)]
        for value in self._values(part):
            beyond = "above" if part.measures.higher_is_better else "below"
            blocks += [title(f"Until {part.reached(value)}"), target_table(groups, value)]
            blocks.append(Paragraph(_TARGET_NOTE.format(beyond=beyond)))
        if (sooner := sooner_table(groups)) is not None:
            blocks += [title("Why sooner or later"), sooner, Paragraph(sooner_note(groups))]
        target = self.first_screen(part).target
        if (cost := cost_table(groups, target)) is not None:
            blocks += [title("Cost"), cost, Paragraph(cost_note(groups))]
        closer = [Image(path, text) for path, text in pictures if CLOSER in path.name]
        pictures = [(path, text) for path, text in pictures if CLOSER not in path.name]
        if pictures:
            blocks.append(title("Plots"))
            blocks += [Image(path, text) for path, text in pictures]
        if (times := time_table(groups)) is not None:
            blocks += [title("Where the workers' time went"), times]
        if (unequal := worker_table(groups)) is not None:
            blocks += [title("How unequal the workers were"), unequal, Paragraph(UNEQUAL_NOTE)]
        blocks += closer_blocks(groups, title("Looking closer"), closer)
        return blocks


def setting_of(runs: Sequence[RunResult]) -> str:
    """Say in a few words what all runs have in common."""

    def one(key: str) -> str | None:
        values = {run.summary.get(key) for run in runs}
        return str(values.pop()) if len(values) == 1 else None

    tasks = {run.task for run in runs}
    # A task with data and a model of its own has nothing in the places of theirs.
    parts = [part for part in (one("data"), one("model")) if part and part != "task"]
    if len(tasks) == 1 and tasks != {"classification"}:
        parts.insert(0, tasks.pop())
    if batch := one("batch_size"):
        parts.append(f"batch {batch} a worker")
    return ", ".join(parts) or "several settings"


def _title(found: Collection) -> str:
    names = {str(run.summary.get("name")) for run in found.runs}
    return f"Comparison: {names.pop()}" if len(names) == 1 else "Comparison of runs"


def _task_title(part: TaskRuns) -> str:
    return f"{part.task} ({part.measures.primary})"


def _overview(part: TaskRuns, found: Collection | None) -> str:
    algorithms = list(dict.fromkeys(group.algorithm for group in part.groups))
    seeds = sorted({run.seed for run in part.runs})
    runs = counted(len(part.runs), "run")
    text = (
        f"{runs} of {', '.join(algorithms)} on {setting_of(part.runs)};"
        f" {agreeing(len(seeds), 'seed')} {', '.join(map(str, seeds))}."
    )
    if found and found.unfinished:
        count = len(found.unfinished)
        text += f" {count} more did not finish and {'is' if count == 1 else 'are'} listed below."
    return text


def _table_note(groups: Sequence[Group]) -> str:
    matching = Matching.of(groups)
    parts = []
    if matching.epoch is not None:
        parts.append(
            f"Epoch {matching.epoch} is the last that every run was evaluated at: equal samples."
        )
    if matching.time_s is not None:
        parts.append(
            f"{seconds(matching.time_s)} s is when the quickest row was done: equal time, by the"
            " last evaluation of a snapshot taken before (a dash: none yet in one of its runs)."
        )
    if any(group.sequential for group in groups):
        parts.append("Speed-up is samples/s over those of the sequential run.")
    if any(group.histogram for group in groups if not group.sequential):
        parts.append(
            "Staleness counts the updates applied between a worker's pull and its push; W equal"
            " workers settle at W - 1."
        )
    return " ".join(parts)


def _unfinished(found: Collection) -> Table:
    rows = tuple((str(u.path), u.label, u.status, u.reason) for u in found.unfinished)
    return Table(("folder", "run", "status", "reason"), rows, frozenset({0, 1, 2, 3}))
