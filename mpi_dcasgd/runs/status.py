"""Status of runs, finished or not, here or in SLURM's queue."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.run_files import RUNS
from mpi_dcasgd.tools.run_status import FolderRuns, RunStatus
from mpi_dcasgd.tools.slurm.states import job_states

_PATIENCE_S = 15.0  # somebody is waiting


def status(
    folders: Sequence[Path | str] = (), *, root: Path | str = RUNS
) -> dict[Path, list[RunStatus]]:
    """Return the status of runs.

    Args:
        folders: Run folders, or the folders of studies; empty for all in ``root``.
        root: The folder to look in if none are named.

    Returns:
        For each folder the status of the run, or of all runs of the study. Where SLURM does not
        answer within 15 s, which is waited for once, a status says so.

    Raises:
        RunFolderError: A folder that was named holds no run, or ``root`` holds none.

    Example:
        Names of the runs that failed::

            [run.name for runs in status().values() for run in runs if run.state == "failed"]
    """
    opened = {Path(folder): FolderRuns(Path(folder)) for folder in folders}
    root = Path(root)
    for folder in sorted(root.iterdir()) if root.is_dir() and not folders else []:
        with suppress(RunFolderError):  # somebody's own
            opened[folder] = FolderRuns(folder)
    if not opened:
        raise RunFolderError(f"{root}: no runs here; name a folder")
    # Once for all of them, so that a SLURM that does not answer is waited for once.
    jobs = {job_id for runs in opened.values() for job_id in runs.open_jobs()}
    answer = job_states(jobs, _PATIENCE_S)
    return {folder: runs.statuses(answer) for folder, runs in opened.items()}
