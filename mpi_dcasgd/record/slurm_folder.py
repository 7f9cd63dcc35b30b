"""Scripts, logs and submissions of a run, or of a study, that SLURM's jobs make."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.run_files import JOB_YAML

SLURM = "slurm"
"""Name of the folder, within a run folder or a study's."""


@dataclass(frozen=True)
class Submission:
    """One call of sbatch for a folder.

    Attributes:
        job_id: SLURM's number.
        script: The file, relative to the run's or the study's folder.
        parts: The names of the runs of each element of the array; of no array, none.
        report_id: The job that writes the report afterwards, if there is one.
    """

    job_id: str
    script: str
    parts: tuple[tuple[str, ...], ...] = ()
    report_id: str | None = None

    def names_of(self, index: int) -> tuple[str, ...]:
        """The runs of one element."""
        return self.parts[index] if index < len(self.parts) else ()


class SlurmFolder:
    """The folder that a run or a study keeps for SLURM. Making the object touches nothing.

    Args:
        owner: The run folder, or the study's.

    Attributes:
        path: The folder itself.
        job_yaml: The job that was submitted.
        study_yaml: Name of the study's copy in a script that is only shown.
        submissions_jsonl: Every submission, one a line.
    """

    def __init__(self, owner: Path | str) -> None:
        self.path = Path(owner) / SLURM
        self.job_yaml = self.path / JOB_YAML
        self.study_yaml = self.path / "study.yaml"
        self.submissions_jsonl = self.path / "submissions.jsonl"

    def refuse_strangers(self) -> None:
        """Refuse a folder in which a submission would replace a job that none has written.

        Raises:
            RunFolderError: Nothing has been changed.
        """
        if self.job_yaml.exists() and not any(self.path.glob("*.sbatch")):
            raise RunFolderError(
                f"{self.job_yaml}: would be replaced, and no submission is known to have written "
                "it; nothing was changed, name another folder"
            )

    def log(self, job_id: str) -> Path | None:
        """The output of a job, or of an element of an array, if there is any yet."""
        return next(iter(self.path.glob(f"*-{job_id}.out")), None)

    def new_script(self, text: str, what: str = "submit") -> Path:
        """Write a script under the next number that is free.

        Args:
            text: Its content.
            what: Beginning of its name.

        Raises:
            RunFolderError: It cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            number = 1
            while True:
                file = self.path / f"{what}-{number}.sbatch"
                try:
                    with open(file, "x", encoding="utf-8") as script:
                        script.write(text)
                except FileExistsError:
                    number += 1
                else:
                    return file
        except OSError as error:
            raise RunFolderError(f"{self.path}: cannot be written: {error.strerror}") from error

    def remember(self, submission: Submission) -> None:
        """Add a submission to those that `submissions` returns.

        Raises:
            RunFolderError: It cannot be written.
        """
        path = self.submissions_jsonl
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(submission)) + "\n")
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be written: {error.strerror}") from error

    def submissions(self) -> list[Submission]:
        """Return the submissions, oldest first; damaged lines are left out."""
        try:
            lines = self.submissions_jsonl.read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        return [found for line in lines if (found := _parse(line))]


def _parse(line: str) -> Submission | None:
    try:
        value: Any = json.loads(line)
        parts = tuple(tuple(map(str, names)) for names in value["parts"])
        return Submission(str(value["job_id"]), str(value["script"]), parts, value["report_id"])
    except (ValueError, KeyError, TypeError):
        return None
