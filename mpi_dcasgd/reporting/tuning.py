"""Tuning of the rows of a report, as ``tuning.json`` beside their runs tells.

Of that file this is read, and nothing else::

    {
        "chosen": [
            {
                "algorithm": "asgd",
                "workers": 4,
                "runs": 5,
                "values": {"lr.base": 0.2},
                "edge": ["lr.base"],
                "diverged": 1,
            },
            ...,
        ]
    }

``workers`` may be missing or null, where all numbers of workers have the same values. ``runs`` is
the budget that was spent; ``edge`` names the values that lie at the end of their grid. A file that
is missing, unreadable or of another form is as good as none: the runs are untuned.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi_dcasgd.reporting.collect import RunResult
from mpi_dcasgd.reporting.groups import Group

TUNING_JSON = "tuning.json"


@dataclass(frozen=True, slots=True)
class Tuned:
    """The tuning of one algorithm.

    Attributes:
        algorithm: Its name.
        workers: Number of workers it is for; None for any.
        runs: The budget that was spent.
        values: Chosen, by key.
        edge: Keys whose value lies at the end of the grid.
        diverged: Runs that had no result.
    """

    algorithm: str
    workers: int | None
    runs: int
    values: tuple[tuple[str, Any], ...]
    edge: tuple[str, ...]
    diverged: int

    @classmethod
    def of(cls, entry: Any) -> Tuned:
        """Read one entry.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: It has another form.
        """
        workers = entry.get("workers")
        return cls(
            algorithm=str(entry["algorithm"]),
            workers=None if workers is None else int(workers),
            runs=int(entry["runs"]),
            values=tuple((str(key), value) for key, value in entry["values"].items()),
            edge=tuple(map(str, entry.get("edge") or ())),
            diverged=int(entry.get("diverged") or 0),
        )

    def covers(self, group: Group) -> bool:
        """Return whether a row has been tuned by this."""
        return self.algorithm == group.algorithm and self.workers in (None, group.num_workers)


def tunings(runs: Sequence[RunResult]) -> list[Tuned]:
    """Read what lies in the folders of the studies that runs belong to; empty if they have none."""
    found = []
    for folder in dict.fromkeys(run.path.parent for run in runs):
        found += _read(folder / TUNING_JSON)
    return found


def _read(path: Path) -> list[Tuned]:
    try:
        return [Tuned.of(entry) for entry in json.loads(path.read_bytes())["chosen"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def tuning_remarks(groups: Sequence[Group], tuned: Sequence[Tuned]) -> list[str]:
    """Say how far the settings of rows that are compared were chosen fairly."""
    algorithms = dict.fromkeys(group.algorithm for group in groups)
    if len(groups) < 2:
        return []
    without = dict.fromkeys(
        g.algorithm for g in groups if not any(each.covers(g) for each in tuned)
    )
    if len(without) == len(algorithms):
        return [
            "Untuned: nothing says that learning rates and settings were chosen for each algorithm"
            " with the same care, so the order may be that of the settings."
        ]
    found = []
    if without:
        found.append(f"Untuned, beside rows that were tuned: {', '.join(without)}.")
    used = [each for each in tuned if any(each.covers(group) for group in groups)]
    budgets = {each.algorithm: each.runs for each in used}
    if len(set(budgets.values())) > 1:
        told = ", ".join(f"{name} {runs}" for name, runs in budgets.items())
        found.append(f"Unequal budgets of tuning, in runs: {told}.")
    else:
        chosen = "; ".join(map(_chosen, used))
        found.append(f"Tuned with {next(iter(budgets.values()))} runs for each: {chosen}.")
    for each in used:
        if each.edge:
            found.append(
                f"At the edge of its grid: {', '.join(each.edge)} of {each.algorithm}; a value"
                " beyond it may be better."
            )
    return found


def _chosen(tuned: Tuned) -> str:
    values = ", ".join(f"{key} {value}" for key, value in tuned.values)
    workers = "" if tuned.workers is None else f" with {tuned.workers} workers"
    diverged = f" ({tuned.diverged} diverged)" if tuned.diverged else ""
    return f"{tuned.algorithm}{workers} {values}{diverged}"
