"""The first screen of a report: the verdict, what it rests on, one table and two pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mpi_dcasgd.reporting.closer import rates_too_large
from mpi_dcasgd.reporting.collect import UnfinishedRun
from mpi_dcasgd.reporting.criteria import (
    by_cost,
    by_result,
    by_time,
    common_target,
    contestants,
)
from mpi_dcasgd.reporting.document import Block, Bullets, Heading, Paragraph, Table
from mpi_dcasgd.reporting.effort import rank_seconds_to, seconds_to
from mpi_dcasgd.reporting.groups import Group, Stat
from mpi_dcasgd.reporting.paired import METHOD
from mpi_dcasgd.reporting.reasons import reasons
from mpi_dcasgd.reporting.remarks import (
    crowded,
    epochs_differ,
    fewer_updates,
    hardware_differs,
    server_rank,
    virtual_seconds,
)
from mpi_dcasgd.reporting.table import NONE, digits_of, show, show_metric
from mpi_dcasgd.reporting.tasks import TaskRuns
from mpi_dcasgd.reporting.tuning import left_out_remarks, tuning_remarks, tunings
from mpi_dcasgd.reporting.verdict import Verdict, judge
from mpi_dcasgd.wording import counted

_ENOUGH_SEEDS = 3
_NAMED = 5
_RESOLUTION = (
    "Times are those of the first evaluation there, so what is less than the time between"
    " evaluations cannot be seen."
)


@dataclass(frozen=True, slots=True)
class FirstScreen:
    """The verdict on one task.

    Attributes:
        part: Its runs.
        target: That times are taken to; None if too few rows have any result.
        chosen: True if nobody has set the target.
    """

    part: TaskRuns
    target: float | None
    chosen: bool

    @classmethod
    def of(cls, part: TaskRuns, targets: Sequence[float]) -> FirstScreen:
        """Take the first target that was asked for, or one that most rows reached."""
        if targets:
            return cls(part, targets[0], False)
        return cls(part, common_target(contestants(part.groups)), True)

    @property
    def rivals(self) -> tuple[Group, ...]:
        """Rows whose seconds can be compared."""
        return contestants(self.part.groups)

    @property
    def named_target(self) -> tuple[float, str] | None:
        """The target, and the same in words."""
        return None if self.target is None else (self.target, self.part.reached(self.target))

    def verdicts(self) -> list[Verdict]:
        """By time, by result and by cost; none where there is but one row."""
        found = []
        if self.target is not None and len(self.rivals) > 1:
            found.append(judge(self.rivals, by_time(self.part, self.target)))
        if len(self.part.groups) > 1:
            found.append(judge(self.part.groups, by_result(self.part)))
        if self.target is not None and len(self.rivals) > 1:
            found.append(judge(self.rivals, by_cost(self.part, self.target)))
        return found

    def sentences(self) -> list[str]:
        """The verdict, and why it is so."""
        verdicts = self.verdicts()
        if not verdicts:
            return []
        found = [verdict.sentence() for verdict in verdicts]
        if self.target is not None and len(self.rivals) > 1:
            found += reasons(self.rivals, verdicts[0])
        return found

    def cautions(self) -> list[str]:
        """Return what makes the comparison less fair, or less sure, than it looks."""
        groups, tuned = self.part.groups, tunings(self.part.runs)
        if len(groups) < 2:
            return left_out_remarks(tuned)
        found = [
            _few_seeds(groups),
            *left_out_remarks(tuned),
            rates_too_large(groups),
            *tuning_remarks(groups, tuned),
            crowded(self.part.runs),
            server_rank(groups),
            fewer_updates(groups),
            epochs_differ(self.part.runs),
            hardware_differs(self.part.runs),
            virtual_seconds(groups),
            self._foretold(),
        ]
        return [caution for caution in found if caution]

    def blocks(self, heading: str, left_out: Sequence[UnfinishedRun]) -> list[Block]:
        """The words and the table.

        Args:
            heading: Beginning of the heading.
            left_out: Runs that could not be read, or did not finish.
        """
        found: list[Block] = [Heading(2, f"{heading}Verdict")]
        if sentences := self.sentences():
            judged = len(self.verdicts())
            found.append(Bullets(tuple(sentences[:judged]), lead=True))
            if why := sentences[judged:]:
                found.append(Bullets(tuple(why)))
        else:
            found.append(Paragraph("There is but one row: nothing to compare it with."))
        cautions = self.cautions()
        if left_out:
            cautions.append(told_left_out(left_out))
        if cautions:
            found += [Paragraph("Mind:"), Bullets(tuple(cautions))]
        found.append(self.table())
        return found

    def note(self) -> str:
        """Say how the words and the table were made; empty where there is but one row."""
        if len(self.part.groups) < 2:
            return ""
        if self.target is None:
            return METHOD
        text = f"{_RESOLUTION} {METHOD}"
        if not self.chosen:
            return text
        return (
            f"Nobody has set a target: {self.part.reached(self.target)} is the best that three"
            f" quarters of the rows reached in all their runs. {text}"
        )

    def table(self) -> Table:
        """One row a group, with so few columns that a phone has room for them."""
        part, target = self.part, self.target
        measures, primary = part.measures, part.measures.primary
        header = ["row", f"test {measures.title(primary)}"]
        if target is not None:
            header += ["s to target", "rank-s to target"]
        header.append("staleness")
        rows = []
        for group in part.groups:
            row = [group.label, show_metric(group.metric(f"test_{primary}"), measures, primary)]
            if target is not None:
                for of in (seconds_to, rank_seconds_to):
                    row.append(_of_all([of(run, target) for run in group.runs]))
            stat = group.stat("staleness_mean")
            stale = not group.sequential and stat is not None
            row.append(f"{stat.mean:.1f}" if stale and stat else NONE)
            rows.append(tuple(row))
        return Table(tuple(header), tuple(rows), narrow=True)

    def _foretold(self) -> str:
        if len(self.rivals) == len(self.part.groups):
            return ""
        kind = "simulated" if self.rivals and self.rivals[0].simulated else "real"
        return f"Time and cost are judged among the {kind} rows alone."


def told_left_out(runs: Sequence[UnfinishedRun]) -> str:
    """Name the runs that are not compared."""
    names = [f"{run.path.name} ({run.status})" for run in runs[:_NAMED]]
    more = f" and {len(runs) - _NAMED} more" if len(runs) > _NAMED else ""
    return f"Left out: {', '.join(names)}{more}."


def _few_seeds(groups: Sequence[Group]) -> str:
    few = min(len({run.seed for run in group.runs}) for group in groups)
    if few >= _ENOUGH_SEEDS:
        return ""
    return (
        "One seed: nothing here tells a difference from chance; run at least 3."
        if few == 1
        else f"Only {counted(few, 'seed')}: intervals are wide; run at least 3."
    )


def _of_all(values: Sequence[float | None]) -> str:
    stat = Stat.of(values)
    if stat is None or stat.n < len(values):
        return NONE
    return show(stat, digits_of(stat.mean))
