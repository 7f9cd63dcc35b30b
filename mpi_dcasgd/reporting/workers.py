"""Inequality of the workers, which decides whether asynchronous training wins or loses."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from mpi_dcasgd.reporting.document import Table
from mpi_dcasgd.reporting.groups import Group
from mpi_dcasgd.reporting.table import NONE, digits_of, name_of

NOTE = (
    "Fastest and slowest are the workers with the shortest and the longest mean step, loading of"
    " data included. W equal workers give 1/W of the gradients each. A slow worker holds a"
    " synchronous group up at every step; an asynchronous server carries on, has few gradients of"
    " it, and those are stale."
)


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker over the runs of a group."""

    step_ms: float
    share: float
    staleness: float | None


def worker_table(groups: Sequence[Group]) -> Table | None:
    """One row a group of several workers; None if nothing is known of any."""
    known = [(group, workers) for group in groups if len(workers := workers_of(group)) > 1]
    if not known:
        return None
    digits = digits_of(min(worker.step_ms for _, workers in known for worker in workers))
    rows = []
    for group, workers in known:
        fastest = min(workers, key=lambda worker: worker.step_ms)
        slowest = max(workers, key=lambda worker: worker.step_ms)
        rows.append(
            (
                name_of(group),
                str(group.num_workers),
                f"{fastest.step_ms:,.{digits}f}",
                f"{slowest.step_ms:,.{digits}f}",
                f"{100 * fastest.share:.1f}",
                f"{100 * slowest.share:.1f}",
                _shown(fastest.staleness),
                _shown(slowest.staleness),
            )
        )
    header = (
        *("algorithm", "workers", "fastest: ms a gradient", "slowest"),
        *("fastest: % of gradients", "slowest", "fastest: staleness", "slowest"),
    )
    return Table(header, tuple(rows))


def workers_of(group: Group) -> list[Worker]:
    """Workers that computed anything, over all runs of the group together."""
    updates: Counter[int] = Counter()
    spent_s: dict[int, float] = defaultdict(float)
    entered: Counter[int] = Counter()
    staleness: Counter[int] = Counter()
    for run in group.runs:
        for totals in run.workers:
            number = int(totals["worker"])
            updates[number] += int(totals["updates"])
            spent_s[number] += float(totals.get("compute_s", 0)) + float(totals.get("data_s", 0))
        for number, (gradients, total) in run.staleness.items():
            entered[number] += gradients
            staleness[number] += total
    everything = updates.total()
    return [
        Worker(
            step_ms=1e3 * spent_s[number] / count,
            share=count / everything,
            staleness=staleness[number] / entered[number] if entered[number] else None,
        )
        for number, count in sorted(updates.items())
        if count
    ]


def _shown(staleness: float | None) -> str:
    return NONE if staleness is None else f"{staleness:.2f}"
