"""Site files: what a batch script sources first, from the user's folder or from the package."""

from __future__ import annotations

from pathlib import Path

from mpi_dcasgd.errors import ConfigError, did_you_mean
from mpi_dcasgd.shipped import shipped

SITE_FOLDER = Path("slurm/env")
"""Folder of site files, relative to the current folder and to what comes with the package."""


def find_site_file(choice: str) -> Path:
    """Return the absolute path of a site file.

    Args:
        choice: Path with a slash in it, or a name: ``srun-pmix`` for ``srun-pmix.sh`` in
            ``./slurm/env`` or, if there is none, among those that come with the package.

    Raises:
        ConfigError: There is no such file.
    """
    if "/" in choice:
        file = Path(choice)
        if not file.is_file():
            raise ConfigError("command line", [f"--site-env {choice}: no such file"])
        return file.absolute()
    folders = (SITE_FOLDER, shipped(SITE_FOLDER.as_posix()))
    for folder in folders:
        file = folder / f"{choice}.sh"
        if file.is_file():
            return file.absolute()
    names = sorted({each.stem for folder in folders for each in folder.glob("*.sh")})
    raise ConfigError(
        "command line",
        [
            f"--site-env {choice}: no {SITE_FOLDER}/{choice}.sh here, nor in the package"
            f"{did_you_mean(choice, names)} (allowed: the path of a file, or {', '.join(names)})"
        ],
    )
