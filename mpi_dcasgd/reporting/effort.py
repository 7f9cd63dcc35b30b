"""Cost of results: seconds of all ranks, with and without the server's, and energy."""

from __future__ import annotations

from mpi_dcasgd.reporting.collect import RunResult
from mpi_dcasgd.reporting.document import Table
from mpi_dcasgd.reporting.groups import Group, Stat, first_reaching
from mpi_dcasgd.reporting.table import NONE, digits_of, name_of, show

ENERGY = {"energy_j": "joules (rank 0's host)", "gpu_energy_j": "joules (its GPUs)"}
"""Keys of the summary that tell of energy, and their columns."""

NOTE = (
    "Rank-seconds are seconds since training began times ranks; a device-hour is 3,600 of them, and"
    " every rank counts as one device. The server's rank computes no gradient, and may do with a"
    " processor where workers need a GPU: without it only the workers' ranks count."
)
_ENERGY_NOTE = (
    " Joules are those that the counters of rank 0's host told between start and end, of all that"
    " ran there: of processors and memory, and of GPUs, each if they can be read. Those of other"
    " hosts are not in them."
)
_HOUR_S = 3_600.0


def ranks(run: RunResult) -> int:
    """Ranks of a run, the server's among them."""
    return int(run.number("world_size") or run.num_workers)


def seconds_to(run: RunResult, target: float) -> float | None:
    """Seconds until a run had reached a target, or None if it has not."""
    point = first_reaching(target)(run)
    return None if point is None else point.time_s


def rank_seconds_to(run: RunResult, target: float) -> float | None:
    """Seconds of all ranks, the server's among them, until a run had reached a target."""
    time_s = seconds_to(run, target)
    return None if time_s is None else ranks(run) * time_s


def show_rank_seconds(value: float) -> str:
    """Rank-seconds in words: in device-hours from a tenth of one on.

    Example:
        >>> show_rank_seconds(12.34), show_rank_seconds(7200)
        ('12.3 rank-s', '2.00 device-h')
    """
    if value < _HOUR_S / 10:
        return f"{value:,.{digits_of(value)}f} rank-s"
    hours = value / _HOUR_S
    return f"{hours:,.{digits_of(hours)}f} device-h"


def cost_table(groups: tuple[Group, ...], target: float | None) -> Table | None:
    """One row a group: rank-seconds of whole runs, and until a target; None without any."""
    header = ["algorithm", "workers", "ranks", "rank-s", "without server", "device-h"]
    if target is not None:
        header += ["rank-s to target", "without server"]
    measured = _measured(groups)
    header += [ENERGY[key] for key in measured]
    rows = []
    for group in groups:
        totals = [(ranks(run), run.num_workers, run.number("wall_s")) for run in group.runs]
        whole = Stat.of(n * wall for n, _, wall in totals if wall is not None)
        workers = Stat.of(n * wall for _, n, wall in totals if wall is not None)
        row = [
            name_of(group),
            NONE if group.sequential else str(group.num_workers),
            str(group.world_size),
            _shown(whole),
            _shown(workers),
            show(whole, 4 if whole and whole.mean < _HOUR_S else 2, 1 / _HOUR_S),
        ]
        if target is not None:
            times = [seconds_to(run, target) for run in group.runs]
            all_there = None not in times
            for of in (ranks, _workers):
                values = [of(r) * (t or 0.0) for r, t in zip(group.runs, times, strict=True)]
                row.append(_shown(Stat.of(values)) if all_there else NONE)
        row += [show(group.stat(key), 0) for key in measured]
        rows.append(tuple(row))
    return Table(tuple(header), tuple(rows)) if rows else None


def cost_note(groups: tuple[Group, ...]) -> str:
    """Say how the table is to be read."""
    return NOTE + (_ENERGY_NOTE if _measured(groups) else "")


def _measured(groups: tuple[Group, ...]) -> list[str]:
    return [key for key in ENERGY if any(group.stat(key) for group in groups)]


def _workers(run: RunResult) -> int:
    return run.num_workers


def _shown(stat: Stat | None) -> str:
    return NONE if stat is None else show(stat, digits_of(stat.mean))
