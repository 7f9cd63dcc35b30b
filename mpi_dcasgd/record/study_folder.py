"""Everything about a study lies in one folder; this module alone knows the names within it.

::

    out/
      jobs/NAME.yaml        the job of each run
      clusters/NAME.yaml    the cluster of simulated runs
      NAME/                 a run folder
      replaced/NAME-1/      a finished run whose job has changed since
      tuning/               the study of the tuning runs, laid out like this one
      tuning.json           what they chose
      report/               the comparison
      slurm/                scripts, logs and submissions
      .lock, .locks/NAME    held by a comparison at work
      .parts/JOB/N          element of the array of SLURM's job that makes the N-th part of the runs
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.atomic import write_atomic
from mpi_dcasgd.record.run_files import JOB_YAML
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.slurm_folder import SLURM, SlurmFolder

_REPLACED = "replaced"
_TUNING = "tuning"


class StudyFolder:
    """The paths of one study's runs. Making the object touches nothing.

    Args:
        path: The folder.

    Attributes:
        report: Folder of the report.
        replaced: Finished runs whose job has changed; they are moved there, never deleted.
        tuning_json: What tuning chose for each algorithm.
        lock: Locked by a comparison, shared or alone.
        locks: Folder of one lock for each run.
        slurm: Scripts, logs and submissions.

    Example:
        >>> study = StudyFolder("runs/compare_digits")
        >>> study.run("asgd-w4-s0").path.as_posix()
        'runs/compare_digits/asgd-w4-s0'
        >>> study.job_file("asgd-w4-s0").as_posix()
        'runs/compare_digits/jobs/asgd-w4-s0.yaml'
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.report = self.path / "report"
        self.replaced = self.path / _REPLACED
        self.tuning_json = self.path / "tuning.json"
        self.lock = self.path / ".lock"
        self.locks = self.path / ".locks"
        self.slurm = SlurmFolder(self.path)
        self._jobs = self.path / "jobs"
        self._clusters = self.path / "clusters"

    def __repr__(self) -> str:
        return f"StudyFolder({str(self.path)!r})"

    def run(self, name: str) -> RunFolder:
        """The run folder of one run."""
        return RunFolder(self.path / name)

    @property
    def tuning(self) -> StudyFolder:
        """The folder of the runs by which values are chosen; they are not compared."""
        return StudyFolder(self.path / _TUNING)

    def write_tuning(self, record: dict[str, Any]) -> None:
        """Write what tuning chose, unless the file says so already."""
        text = (json.dumps(record, indent=2) + "\n").encode()
        if not self.tuning_json.is_file() or self.tuning_json.read_bytes() != text:
            write_atomic(self.tuning_json, text)

    def tuned(self) -> dict[str, Any] | None:
        """Read what tuning chose; None if nothing was tuned, or the file cannot be read."""
        try:
            record = json.loads(self.tuning_json.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def job_file(self, name: str) -> Path:
        """The job file that the ranks of one run read."""
        return self._jobs / f"{name}.yaml"

    def cluster_file(self, name: str) -> Path:
        """The cluster of a simulated run, or of those that are calibrated from the run ``name``."""
        return self._clusters / f"{name}.yaml"

    def write_job(self, name: str, text: str) -> None:
        """Write the job file of one run.

        Args:
            name: Of the run.
            text: The content.

        Raises:
            RunFolderError: It cannot be written, or is a file of somebody else's.
        """
        file = self.job_file(name)
        content = text.encode()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            ours = not file.exists() or self._is_ours() or file.read_bytes() == content
        except OSError as error:
            raise RunFolderError(f"{file.parent}: cannot be made: {error.strerror}") from error
        if not ours:
            raise RunFolderError(
                f"{file}: would be replaced, and no comparison is known to have written it; "
                "nothing was changed, name another folder with -o"
            )
        write_atomic(file, content)

    def _is_ours(self) -> bool:
        """Return whether a comparison, or a submission, has worked in this folder."""
        return self.lock.exists() or any(self.slurm.path.glob("study-*"))

    def names(self) -> list[str]:
        """The names of the runs: planned ones, submitted ones, and those that are there.

        Empty for a folder that is no study's.
        """
        names = dict.fromkeys(sorted(file.stem for file in self._jobs.glob("*.yaml")))
        for submission in self.slurm.submissions():
            names |= dict.fromkeys(name for part in submission.parts for name in part)
        names |= dict.fromkeys(folder.path.name for folder in _runs_in(self.path))
        return list(names)

    def move_aside(self, name: str) -> Path:
        """Move a run into ``replaced``, under the next number that is free, and return where to.

        Raises:
            RunFolderError: It cannot be moved.
        """
        try:
            self.replaced.mkdir(exist_ok=True)
            number = 1
            while (target := self.replaced / f"{name}-{number}").exists():
                number += 1
            self.run(name).path.rename(target)
        except OSError as error:
            raise RunFolderError(
                f"{self.path / name}: cannot be moved to {self.replaced}: {error.strerror}"
            ) from error
        return target


def find_runs(path: Path) -> list[RunFolder]:
    """The run folder that a path is, or all that lie in it, or in the folders in it.

    Args:
        path: A run folder, a study's folder, or a folder of such; ``runs/`` for one.

    Returns:
        Sorted by path; empty if there are none. A study's tuning runs are no result of it.
    """
    if RunFolder(path).is_run():
        return [RunFolder(path)]
    folders = [each for each in path.glob("*/") if each.name != _TUNING]
    inside = [*_runs_in(path), *(run for each in folders for run in _runs_in(each))]
    return sorted(inside, key=lambda folder: folder.path)


def _runs_in(path: Path) -> list[RunFolder]:
    # A job that was submitted lies in a folder that is no run's.
    folders = (file.parent for file in path.glob(f"*/{JOB_YAML}"))
    return [RunFolder(folder) for folder in sorted(folders) if folder.name != SLURM]
