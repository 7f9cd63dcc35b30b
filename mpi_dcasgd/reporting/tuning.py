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
                "tied": 3,
                "tie_by_final": false,
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
from mpi_dcasgd.wording import counted

TUNING_JSON = "tuning.json"


@dataclass(frozen=True, slots=True)
class Tuned:
    """The tuning of one algorithm.

    Attributes:
        algorithm: Its name.
        label: What it is called where an algorithm is compared with several settings.
        workers: Number of workers it is for; None for any.
        runs: The budget that was spent.
        values: Chosen, by key.
        edge: Keys whose value lies at the end of the grid.
        diverged: Runs that had no result.
        cut_off: Runs that did not reach the target in time.
        left_out: No run has won, so that the algorithm is not among those that are compared.
        tied: Runs that had the best score, where that was more than one; else 0.
        tie_by_final: The better final value decided among them; else the first was taken.
    """

    algorithm: str
    workers: int | None
    runs: int
    values: tuple[tuple[str, Any], ...]
    edge: tuple[str, ...]
    diverged: int
    label: str
    cut_off: int = 0
    left_out: bool = False
    tied: int = 0
    tie_by_final: bool = False

    @classmethod
    def of(cls, entry: Any, *, left_out: bool = False) -> Tuned:
        """Read one entry.

        Args:
            entry: Of ``chosen``, or of ``left_out``.
            left_out: The latter.

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
            label=str(entry.get("label") or entry["algorithm"]),
            cut_off=int(entry.get("cut_off") or 0),
            left_out=left_out,
            tied=int(entry.get("tied") or 0),
            tie_by_final=bool(entry.get("tie_by_final")),
        )

    def covers(self, group: Group) -> bool:
        """Return whether a row has been tuned by this."""
        if self.left_out:
            return False
        return self.algorithm == group.algorithm and self.workers in (None, group.num_workers)


def tunings(runs: Sequence[RunResult]) -> list[Tuned]:
    """Read what lies in the folders of the studies that runs belong to; empty if they have none."""
    found = []
    for folder in dict.fromkeys(run.path.parent for run in runs):
        found += _read(folder / TUNING_JSON)
    return found


def _read(path: Path) -> list[Tuned]:
    try:
        record = json.loads(path.read_bytes())
        lost = [Tuned.of(entry, left_out=True) for entry in record.get("left_out") or ()]
        return [*(Tuned.of(entry) for entry in record["chosen"]), *lost]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def left_out_remarks(tuned: Sequence[Tuned]) -> list[str]:
    """Name the algorithms that tuning left out, each with the reason."""
    found = []
    for each in tuned:
        if each.left_out:
            lost = [f"{each.diverged} diverged"] if each.diverged else []
            lost += [f"{each.cut_off} did not reach the target in time"] if each.cut_off else []
            found.append(
                f"Left out by tuning: {each.label}{_workers(each)}, of whose "
                f"{counted(each.runs, 'tuning run')} {' and '.join(lost) or 'none had a result'}."
            )
    return found


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
    budgets = {each.label: each.runs for each in used}
    if len(set(budgets.values())) > 1:
        told = ", ".join(f"{name} {runs}" for name, runs in budgets.items())
        found.append(f"Unequal budgets of tuning, in runs: {told}.")
    else:
        chosen = "; ".join(map(_chosen, used))
        found.append(
            f"Tuned with {counted(next(iter(budgets.values())), 'run')} for each: {chosen}."
        )
    found += [_tie(each) for each in used if each.tied]
    if edges := dict.fromkeys(
        f"{', '.join(each.edge)} of {each.label}{_workers(each)}" for each in used if each.edge
    ):
        whose = "its" if len(edges) == 1 else "their"
        found.append(
            f"At the edge of {whose} grid: {'; '.join(edges)}. A value beyond it may be better."
        )
    return found


def _tie(tuned: Tuned) -> str:
    how = "the better final value decided" if tuned.tie_by_final else "the first was taken"
    return (
        f"{tuned.tied} of {counted(tuned.runs, 'setting')} of {tuned.label}{_workers(tuned)} "
        f"tied when it was tuned; {how}."
    )


def _workers(tuned: Tuned) -> str:
    return "" if tuned.workers is None else f" with {counted(tuned.workers, 'worker')}"


def _chosen(tuned: Tuned) -> str:
    values = ", ".join(f"{key} {value}" for key, value in tuned.values)
    diverged = f" ({tuned.diverged} diverged)" if tuned.diverged else ""
    return f"{tuned.label}{_workers(tuned)} {values}{diverged}"
