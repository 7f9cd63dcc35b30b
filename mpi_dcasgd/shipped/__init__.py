"""Files that come with the package: example jobs and studies, site files, batch scripts.

In the repository they lie at the top, in ``jobs/`` and ``slurm/``, and the entries beside this file
are links to those folders; a wheel has the files themselves. So one path serves both.
"""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).parent


def shipped(name: str = "") -> Path:
    """Return the path of a file, or of a folder, that comes with the package.

    Args:
        name: Relative path with slashes, as in the repository; empty for the folder of all.

    Raises:
        FileNotFoundError: The package has no such file.

    Example:
        >>> shipped("jobs/digits.yaml").name
        'digits.yaml'
    """
    path = _ROOT / name
    if not path.exists():
        raise FileNotFoundError(f"{path}: does not come with mpi_dcasgd")
    return path
