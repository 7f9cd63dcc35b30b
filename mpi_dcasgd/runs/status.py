"""Status of runs, finished or not, here or in SLURM's queue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.run_folder import RUNS
from mpi_dcasgd.tools.run_status import RunStatus, folder_status


def status(
    folders: Sequence[Path | str] = (), *, root: Path | str = RUNS
) -> dict[Path, list[RunStatus]]:
    """Return the status of runs.

    Args:
        folders: Run folders, or the folders of studies; empty for all in ``root``.
        root: The folder to look in if none are named.

    Returns:
        For each folder the status of the run, or of all runs of the study.

    Raises:
        RunFolderError: A folder that was named holds no run, or ``root`` holds none.

    Example:
        Names of the runs that failed::

            [run.name for runs in status().values() for run in runs if run.state == "failed"]
    """
    if folders:
        return {Path(folder): folder_status(Path(folder)) for folder in folders}
    root = Path(root)
    found: dict[Path, list[RunStatus]] = {}
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        try:
            found[folder] = folder_status(folder)
        except RunFolderError:
            continue  # somebody's own
    if not found:
        raise RunFolderError(f"{root}: no runs here; name a folder")
    return found
