"""Handing scripts to sbatch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mpi_dcasgd.errors import LaunchError

_PATIENCE_S = 120


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


def sbatch(script: Path, after: Sequence[str] = ()) -> str:
    """Submit a script and return the job's number.

    Args:
        script: The file.
        after: The jobs, or arrays, that have to end first, however they end.

    Raises:
        LaunchError: There is no sbatch, or it refuses; with what it says.
    """
    words = [find_sbatch(), "--parsable"]
    words += [f"--dependency=afterany:{':'.join(after)}"] if after else []
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
