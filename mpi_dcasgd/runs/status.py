"""``mpi-dcasgd status``: a table of runs and of how far they are."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.run_folder import RUNS
from mpi_dcasgd.tools.run_status import RunStatus, folder_status


def status(args: argparse.Namespace) -> int:
    """Show runs.

    Returns:
        0.

    Raises:
        RunFolderError: A folder that was named is none, or there are none.
    """
    found = {folder: folder_status(folder) for folder in args.folders} or _all_in(RUNS)
    if not found:
        raise RunFolderError(f"{RUNS}: no runs here; name a folder")
    if args.json:
        print(json.dumps({str(folder): [asdict(run) for run in found[folder]] for folder in found}))
        return 0
    print("\n\n".join(_table(folder, runs) for folder, runs in found.items()))
    return 0


def _all_in(root: Path) -> dict[Path, list[RunStatus]]:
    found = {}
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        try:
            found[folder] = folder_status(folder)
        except RunFolderError:
            continue  # somebody's own
    return found


def _table(folder: Path, runs: Sequence[RunStatus]) -> str:
    counts = dict.fromkeys(run.state for run in runs)
    total = ", ".join(f"{sum(r.state == state for r in runs)} {state}" for state in counts)
    lines = [f"{folder}: {total}"]
    width = max(len(run.name) for run in runs)
    ids = max(len(run.job_id or "-") for run in runs)
    for run in runs:
        epoch = "" if run.epoch is None else f"epoch {run.epoch:.1f}"
        error = "" if run.test_error is None else f"test error {100 * run.test_error:.2f} %"
        again = f"restarted {run.restarts} time{'s' * (run.restarts != 1)}" * (run.restarts > 0)
        reason, *more = run.reason.splitlines() or [""]
        words = "  ".join(word for word in (epoch, error, again, reason) if word)
        line = f"  {run.name:<{width}}  {run.job_id or '-':<{ids}}  {run.state:<11}  {words}"
        lines.append(line.rstrip())
        lines += [f"  {'':<{width}}  {'':<{ids}}  {'':<11}  {text}" for text in more]
    return "\n".join(lines)
