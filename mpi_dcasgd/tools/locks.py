"""Which comparison may work on which runs of a folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mpi_dcasgd.errors import RunFolderError


@contextmanager
def alone_in(out: Path, names: Sequence[str] | None) -> Iterator[None]:
    """Two comparisons at the same runs would take each other's for unfinished.

    Args:
        out: The folder.
        names: The runs that are to be this comparison's alone; None for all.

    Raises:
        RunFolderError: Another has one of them, or the folder cannot be written.
    """
    with ExitStack() as held:
        held.enter_context(_locked(out, ".lock", shared=names is not None))
        for name in sorted(names or ()):
            held.enter_context(_locked(out / ".locks", name, shared=False))
        yield


@contextmanager
def _locked(folder: Path, name: str, *, shared: bool) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / name, "w")  # noqa: SIM115 # closed below
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be written: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if name == ".lock":
                raise RunFolderError(
                    f"{folder}: another comparison is at work in this folder; wait for it, or "
                    "name another folder with -o"
                ) from error
            raise RunFolderError(
                f"{folder.parent / name}: another comparison is at work on this run; wait for it"
            ) from error
        except OSError:
            pass  # a file system without locks
        yield
