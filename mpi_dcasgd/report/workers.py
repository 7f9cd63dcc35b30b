"""How unequal the workers were, which is where asynchronous training wins or loses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mpi_dcasgd.report.document import Table
from mpi_dcasgd.report.groups import Group
from mpi_dcasgd.report.table import NONE, digits_of, name_of

NOTE = (
    "Fastest and slowest are the workers with the shortest and the longest mean step, loading of"
    " data included. W equal workers give 1/W of the gradients each. A slow worker holds a"
    " synchronous group up at every step; an asynchronous server goes on, has few gradients of it,"
    " and those are stale."
)


@dataclass(frozen=True, slots=True)
class _Worker:
    """One worker over the runs of a group."""

    step_ms: float
    share: float
    staleness: float | None


def worker_table(groups: Sequence[Group]) -> Table | None:
    """One row a group of several workers; None if nothing is known of any."""
    known = [(group, workers) for group in groups if len(workers := _workers(group)) > 1]
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


def _workers(group: Group) -> list[_Worker]:
    """Those that computed anything, over all runs of the group together."""

    def total(worker: int, of: Callable[[dict[str, float]], float]) -> float:
        return sum(of(dict(w)) for run in group.runs for w in run.workers if w["worker"] == worker)

    numbers = sorted({int(worker["worker"]) for run in group.runs for worker in run.workers})
    updates = {number: total(number, lambda w: float(w["updates"])) for number in numbers}
    everything = sum(updates.values())
    found = []
    for number in numbers:
        if not updates[number]:
            continue
        spent_s = total(number, lambda w: float(w.get("compute_s", 0)) + float(w.get("data_s", 0)))
        found.append(
            _Worker(
                step_ms=1e3 * spent_s / updates[number],
                share=updates[number] / everything,
                staleness=_staleness(group, number),
            )
        )
    return found


def _staleness(group: Group, worker: int) -> float | None:
    """Mean over the worker's gradients that entered; None where no trace tells."""
    sums = [run.staleness[worker] for run in group.runs if worker in run.staleness]
    count = sum(gradients for gradients, _ in sums)
    return sum(staleness for _, staleness in sums) / count if count else None


def _shown(staleness: float | None) -> str:
    return NONE if staleness is None else f"{staleness:.2f}"
