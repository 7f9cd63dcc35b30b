"""Locks that keep two comparisons from working on the same run."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.study_folder import StudyFolder


@contextmanager
def alone_in(study: StudyFolder, names: Sequence[str] | None) -> Iterator[None]:
    """Keep other comparisons away: they would take each other's runs for unfinished.

    Args:
        study: The folder of the runs.
        names: The runs that are to be this comparison's alone; None for all.

    Raises:
        RunFolderError: Another has one of them, or the folder cannot be written.
    """
    with ExitStack() as held:
        at_work = (
            f"{study.path}: another comparison is at work in this folder; wait for it, or name "
            "another folder with -o"
        )
        held.enter_context(_locked(study.lock, at_work, shared=names is not None))
        for name in sorted(names or ()):
            at_work = f"{study.path / name}: another comparison is at work on this run; wait for it"
            held.enter_context(_locked(study.locks / name, at_work, shared=False))
        yield


def is_at_work(study: StudyFolder) -> bool:
    """Return whether a comparison is at work in a folder, as far as locks tell."""
    try:
        with open(study.lock) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # no study's, or a file system without locks
    return False


@contextmanager
def _locked(file: Path, at_work: str, *, shared: bool) -> Iterator[None]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = open(file, "w")  # noqa: SIM115 # closed below
    except OSError as error:
        raise RunFolderError(f"{file.parent}: cannot be written: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunFolderError(at_work) from error
        except OSError:
            pass  # a file system without locks
        yield
