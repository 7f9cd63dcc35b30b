"""Starter files of a new project folder: a job, two studies, batch scripts and site files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mpi_dcasgd.errors import UserError
from mpi_dcasgd.shipped import shipped

STARTER_FILES = (
    "jobs/digits.yaml",
    "jobs/compare_digits.yaml",
    "jobs/compare_digits_workers.yaml",  # the study that slurm/compare.sbatch submits by default
    "slurm/*.sbatch",
    "slurm/env/*.sh",
)
"""Patterns of the files that are copied, relative to what comes with the package."""


@dataclass(frozen=True, slots=True)
class Starter:
    """Result of copying the starter files.

    Attributes:
        written: Files that were created, relative to the folder.
        kept: Files that existed already and were left unchanged.
    """

    written: tuple[Path, ...]
    kept: tuple[Path, ...]


def copy_starter_files(folder: Path) -> Starter:
    """Copy the starter files into a folder; never overwrite a file.

    Args:
        folder: Created if it does not exist.

    Raises:
        UserError: The folder cannot be written.
    """
    written: list[Path] = []
    kept: list[Path] = []
    for name in _names():
        target = folder / name
        try:
            os.makedirs(target.parent, exist_ok=True)
            # "x" fails if there is anything of that name, a dangling link included.
            with open(target, "xb") as file:
                file.write(shipped(name.as_posix()).read_bytes())
            written.append(name)
        except FileExistsError:
            if not os.path.lexists(target):  # makedirs: a file is in the way of a folder
                raise UserError(f"{target.parent}: is not a folder") from None
            kept.append(name)
        except OSError as error:
            raise UserError(f"{target}: cannot be written: {error.strerror}") from error
    return Starter(tuple(written), tuple(kept))


def _names() -> Iterator[Path]:
    root = shipped()
    for pattern in STARTER_FILES:
        yield from sorted(file.relative_to(root) for file in root.glob(pattern))
