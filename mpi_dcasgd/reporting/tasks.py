"""Runs by task: only runs of one task and one primary metric can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.reporting.collect import RunResult
from mpi_dcasgd.reporting.groups import Group, group_runs


@dataclass(frozen=True, slots=True)
class Target:
    """A result whose time is asked for.

    Attributes:
        value: Of the primary metric; a fraction of 1 where it is shown in per cent.
        metric: Only of runs that have this primary metric; None for any.
    """

    value: float
    metric: str | None = None

    def of(self, measures: Measures) -> float | None:
        """The value for runs with these metrics, or None if it does not concern them."""
        return self.value if self.metric in (None, measures.primary) else None


@dataclass(frozen=True, slots=True)
class TaskRuns:
    """Runs of one task.

    Attributes:
        task: Its name.
        measures: Its metrics.
        runs: All of them.
        groups: The rows that they make.
    """

    task: str
    measures: Measures
    runs: tuple[RunResult, ...]
    groups: tuple[Group, ...]

    @property
    def validated(self) -> bool:
        """True if a validation split decides when a target is reached."""
        return all(run.validated for run in self.runs)

    def reached(self, target: float) -> str:
        """A target in words: ``5 % test error``, or ``test f_gap 0.001``."""
        primary = self.measures.primary
        name = f"{'validation' if self.validated else 'test'} {primary}"
        unit = self.measures.units.get(primary)
        value = f"{self.measures.scale(primary) * target:g}"
        return f"{value} {unit} {name}" if unit else f"{name} {value}"


def by_task(runs: Sequence[RunResult]) -> list[TaskRuns]:
    """Part runs by task, in the order in which the tasks appear."""
    members: dict[tuple[str, str, bool, str], list[RunResult]] = {}
    for run in runs:
        measures = run.measures
        unit = measures.units.get(measures.primary, "")
        key = (run.task, measures.primary, measures.higher_is_better, unit)
        members.setdefault(key, []).append(run)
    return [
        TaskRuns(task, mine[0].measures, tuple(mine), tuple(group_runs(mine)))
        for (task, *_), mine in members.items()
    ]
