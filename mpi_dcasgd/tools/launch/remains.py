"""Files that Open MPI's mpirun leaves on this host when it is killed: it removes them at its end.

They are known by its process number, which is in the name of its session folder and of the world,
and so, as Open MPI computes it, in the number of the job that the segments of shared memory are
named after. Nothing else is touched.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_SHARED = Path("/dev/shm")


def remove_remains(pid: int, host: str | None = None, shared: Path = _SHARED) -> list[Path]:
    """Remove what a world has left of which neither launcher nor ranks are left.

    Args:
        pid: Process number that its mpirun had.
        host: Name of this host, as Open MPI has it.
        shared: Folder of shared memory.

    Returns:
        The files and folders that were removed; empty under any other MPI.

    Example:
        >>> remove_remains(2**22 + 1)  # a number that no process has
        []
    """
    removed = []
    for path in _found(pid, host or socket.gethostname(), shared):
        with suppress(OSError):  # it is gone, or another user's
            if path.lstat().st_uid != os.getuid():
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            removed.append(path)
    return removed


def _found(pid: int, host: str, shared: Path) -> Iterator[Path]:
    session = Path(tempfile.gettempdir(), f"ompi.{pid}")
    if session.is_dir():
        yield session
    for name in dict.fromkeys((host, host.partition(".")[0])):
        family = job_family(f"prterun-{name}-{pid}")
        # The last four digits count the jobs of a world: ranks that were started later have others.
        segment = re.compile(rf"sm_segment\.{re.escape(name)}\.\d+\.{family:04x}[0-9a-f]{{4}}\.\d+")
        yield from (path for path in shared.glob("sm_segment.*") if segment.fullmatch(path.name))


def job_family(world: str) -> int:
    """Return the upper half of Open MPI 5's number for a job, from the name of its world.

    It is Jenkins's one-at-a-time hash, folded to 16 bits (``opal_pmix_convert_nspace``).

    Example:
        >>> f"{job_family('prterun-vm-11249'):04x}"  # its segments were sm_segment.vm.0.c7d80001.N
        'c7d8'
    """
    mixed = 0
    for byte in world.encode():
        mixed = (mixed + byte) & 0xFFFFFFFF
        mixed = (mixed + (mixed << 10)) & 0xFFFFFFFF
        mixed ^= mixed >> 6
    mixed = (mixed + (mixed << 3)) & 0xFFFFFFFF
    mixed ^= mixed >> 11
    mixed = (mixed + (mixed << 15)) & 0xFFFFFFFF
    return (mixed >> 16 ^ mixed) & 0xFFFF
