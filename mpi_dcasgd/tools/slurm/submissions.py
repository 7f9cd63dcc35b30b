"""Handing scripts to sbatch, and remembering in a folder what was handed in for it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mpi_dcasgd.errors import LaunchError, RunFolderError

FOLDER = "slurm"
"""Within a run folder, or a study's: scripts, logs, and what was submitted."""

_SUBMISSIONS = "submissions.jsonl"
_PATIENCE_S = 120


@dataclass(frozen=True)
class Submission:
    """One call of sbatch for a folder.

    Attributes:
        job_id: SLURM's number.
        script: The file, relative to the folder.
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


def find_sbatch() -> str:
    """The path of sbatch.

    Raises:
        LaunchError: There is none.
    """
    found = shutil.which("sbatch")
    if not found:
        raise LaunchError(
            "found no sbatch on PATH: submit on a login node of a cluster with SLURM (where it may "
            "be in a module), look at the script with --dry-run, or start the job here with "
            "`mpi-dcasgd run` or `mpi-dcasgd compare`"
        )
    return found


def sbatch(script: Path, after: str | None = None) -> str:
    """Submit a script and return the job's number.

    Args:
        script: The file.
        after: The job, or array, that has to end first, however it ends.

    Raises:
        LaunchError: There is no sbatch, or it refuses; with what it says.
    """
    words = [find_sbatch(), "--parsable"]
    words += [f"--dependency=afterany:{after}"] if after else []
    try:
        done = subprocess.run(
            [*words, str(script)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            env=_outside_of_any_job(),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise LaunchError(f"sbatch {script}: {error}") from error
    if done.returncode:
        lines = [line.removeprefix("sbatch: error: ") for line in done.stderr.splitlines()]
        said = "\n  ".join(line for line in lines if line) or f"status {done.returncode}"
        raise LaunchError(f"sbatch refuses {script}:\n  {said}")
    found = re.search(r"^(\d+)(;.*)?$", done.stdout, re.MULTILINE)
    if not found:
        raise LaunchError(f"sbatch {script}: printed no job number: {done.stdout.strip()!r}")
    return found[1]


def new_script(folder: Path, text: str, what: str = "submit") -> Path:
    """Write a script into a folder under the next number that is free.

    Raises:
        RunFolderError: It cannot be written.
    """
    where = folder / FOLDER
    try:
        where.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            file = where / f"{what}-{number}.sbatch"
            try:
                with open(file, "x", encoding="utf-8") as script:
                    script.write(text)
            except FileExistsError:
                number += 1
            else:
                return file
    except OSError as error:
        raise RunFolderError(f"{where}: cannot be written: {error.strerror}") from error


def remember(folder: Path, submission: Submission) -> None:
    """Add to what `submissions` returns.

    Raises:
        RunFolderError: It cannot be written.
    """
    path = folder / FOLDER / _SUBMISSIONS
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(submission)) + "\n")
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be written: {error.strerror}") from error


def submissions(folder: Path) -> list[Submission]:
    """What was submitted for a folder, oldest first; lines that are damaged are left out."""
    try:
        lines = (folder / FOLDER / _SUBMISSIONS).read_text(encoding="utf-8").splitlines()
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


def _outside_of_any_job() -> dict[str, str]:
    """The environment without the allocation's variables, which the new job would inherit."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SLURM_") or name in ("SLURM_CONF", "SLURM_CLUSTERS")
    }


def dealt(parts: Sequence[Sequence[str]], most: int) -> tuple[tuple[str, ...], ...]:
    """The same runs in at most so many parts."""
    return tuple(
        tuple(name for part in parts[index::most] for name in part)
        for index in range(min(len(parts), most))
    )
