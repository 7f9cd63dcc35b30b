"""Table of verdicts, a line for each kind of fault."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from mpi_dcasgd.tools.chaos.plan import KINDS
from mpi_dcasgd.tools.chaos.verdict import Verdict

_HEADS = (
    *("runs", "at once", "resumed", "lost", "twice", "hangs", "replays", "left", "files"),
    *("status", "unnamed", "named s"),
)
_SORTS = ("lost", "twice", "hang", "replay", "left", "files", "status", "unnamed")


def table(verdicts: Sequence[Verdict]) -> str:
    """Return a line for each kind and mode, and one for all.

    Args:
        verdicts: Of any number of runs.
    """
    rows = [["fault", *_HEADS]]
    for fault_tolerant in (False, True):
        mine = [one for one in verdicts if one.plan.fault_tolerant == fault_tolerant]
        for kind in KINDS:
            chosen = [one for one in mine if one.plan.kind == kind]
            if chosen:
                rows.append([kind + (" (ft)" if fault_tolerant else ""), *_numbers(chosen)])
    rows.append(["all", *_numbers(verdicts)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    return "\n".join([*lines, "", _LEGEND])


_LEGEND = (
    "at once, resumed: runs that were completed by their first start, by later ones; lost, twice: "
    "runs with a\nticket never applied, or more than once; replays: that differ; left: processes; "
    "files: leftovers or damage;\nstatus: exit status, summary and checkpoint disagree; named s: "
    "until the fault was named (median, max)"
)


def _numbers(verdicts: Sequence[Verdict]) -> list[str]:
    resumed = sum(one.starts > 1 and not one.has("hang") for one in verdicts)
    named = [seconds for one in verdicts for seconds in one.named_s]
    shown = f"{statistics.median(named):.1f}, {max(named):.1f}" if named else "-"
    counts = [len(verdicts), sum(one.at_once for one in verdicts), resumed]
    counts += [sum(one.has(sort) for one in verdicts) for sort in _SORTS]
    return [*map(str, counts), shown]
