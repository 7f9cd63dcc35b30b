"""Files that Open MPI's mpirun leaves on this host when it is killed: it removes them at its end.

They are known by its process number, which is in the name of its session folder and of the world,
and so, as Open MPI computes it, in the number of the job that the segments of shared memory are
named after. A rank whose mpirun was killed while MPI began takes itself for a world of one, with a
folder of its own that is named after the rank. Nothing else is touched.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_SHARED = Path("/dev/shm")


def remove_remains(
    pid: int, since_s: float = math.inf, host: str | None = None, shared: Path = _SHARED
) -> list[Path]:
    """Remove what a world has left of which neither launcher nor ranks are left.

    Args:
        pid: Process number that its mpirun had.
        since_s: When it was started, in seconds since the epoch; without it, nothing is looked for
            that ranks without an mpirun have left.
        host: Name of this host, as Open MPI has it.
        shared: Folder of shared memory.

    Returns:
        The files and folders that were removed; empty under any other MPI.

    Example:
        >>> remove_remains(2**22 + 1)  # a number that no process has
        []
    """
    host = host or socket.gethostname()
    removed = []
    for path in [*_found(pid, host, shared), *_singletons(host, since_s)]:
        with suppress(OSError):  # it is gone, or another user's
            if path.lstat().st_uid != os.getuid():
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            removed.append(path)
    for folder in (place for name in _names(host) for place in (_place(name), _place(name).parent)):
        with suppress(OSError):  # it was not there, or others are in it
            folder.rmdir()
    return removed


def _found(pid: int, host: str, shared: Path) -> Iterator[Path]:
    session = Path(tempfile.gettempdir(), f"ompi.{pid}")
    if session.is_dir():
        yield session
    for name in _names(host):
        family = job_family(f"prterun-{name}-{pid}")
        segment = re.compile(rf"sm_segment\.{re.escape(name)}\.\d+\.([0-9a-f]+)\.\d+")
        for path in shared.glob("sm_segment.*"):
            found = segment.fullmatch(path.name)
            # The lower half counts the jobs of a world: ranks that were started later have others.
            if found and int(found[1], 16) >> 16 == family:
                yield path


def _names(host: str) -> list[str]:
    return [*dict.fromkeys((host, host.partition(".")[0]))]


def _place(name: str) -> Path:
    return Path(tempfile.gettempdir(), f"ompi.{name}.{os.getuid()}", "jf.0")


def _singletons(host: str, since_s: float) -> Iterator[Path]:
    """Yield the folders, made since then, of processes without an mpirun that are gone."""
    processes = [folder.name for folder in Path("/proc").glob("[0-9]*")]
    for name in _names(host):
        alive = {job_family(f"singleton.{name}.{process}") for process in processes}
        for folder in _place(name).glob("*"):
            with suppress(OSError, ValueError):  # it has just been removed, or is something else
                if folder.stat().st_mtime >= since_s and int(folder.name) >> 16 not in alive:
                    yield folder


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
