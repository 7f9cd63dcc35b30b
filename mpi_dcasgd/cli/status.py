"""``mpi-dcasgd status``: a table of runs and of their progress."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpi_dcasgd.wording import counted

if TYPE_CHECKING:
    from mpi_dcasgd.tools.run_status import RunStatus

HELP = "progress of runs, from their folders and SLURM's queue"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "folders",
        type=Path,
        nargs="*",
        metavar="FOLDER",
        help="run folder, or the folder of a study's runs (default: all in runs/)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Show runs as a table, or as JSON."""
    from mpi_dcasgd.runs.status import status

    found = status(args.folders)
    if args.json:
        print(json.dumps({str(folder): [run.plain() for run in found[folder]] for folder in found}))
    else:
        print("\n\n".join(_table(folder, runs) for folder, runs in found.items()))
    return 0


def _table(folder: Path, runs: Sequence[RunStatus]) -> str:
    counts = dict.fromkeys(run.state for run in runs)
    total = ", ".join(f"{sum(r.state == state for r in runs)} {state}" for state in counts)
    empty = sum(run.state == "done" and bool(run.reason) for run in runs)
    lines = [f"{folder}: {total}" + (f" ({empty} of them without a result)" if empty else "")]
    width = max(len(run.name) for run in runs)
    ids = max(len(run.job_id or "-") for run in runs)
    for run in runs:
        epoch = "" if run.epoch is None else f"epoch {run.epoch:.1f}"
        again = f"restarted {counted(run.restarts, 'time')}" * (run.restarts > 0)
        reason, *more = run.reason.splitlines() or [""]
        words = "  ".join(word for word in (epoch, run.shown, again, reason) if word)
        line = f"  {run.name:<{width}}  {run.job_id or '-':<{ids}}  {run.state:<11}  {words}"
        lines.append(line.rstrip())
        lines += [f"  {'':<{width}}  {'':<{ids}}  {'':<11}  {text}" for text in more]
    return "\n".join(lines)
