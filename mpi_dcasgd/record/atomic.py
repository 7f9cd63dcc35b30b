"""Files that are whole or not there.

They appear under their own name only when they are complete: they are written beside it as
``NAME.tmp``, flushed to the disk, and renamed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.hangs import alive, working_on


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write into that becomes ``path`` when the block is left without an exception.

    Raises:
        RunFolderError: It cannot be written; ``path`` is as it was before.
    """
    with working_on(path), _written_aside(path) as file:
        yield file


@contextmanager
def _written_aside(path: Path) -> Iterator[BinaryIO]:
    aside = path.with_name(path.name + ".tmp")
    try:
        # Somebody may have removed a run's folder while it trained: what it has learnt is kept.
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, "wb") as file:
            yield file
            file.flush()
            alive()
            os.fsync(file.fileno())
        alive()
        os.replace(aside, path)
        _sync_directory(path.parent)
    except OSError as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise RunFolderError(f"{path}: cannot be written: {error.strerror or error}") from error
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, content: bytes) -> None:
    """Make ``path`` hold ``content``, or leave it as it was."""
    with atomic_file(path) as file:
        file.write(content)


def _sync_directory(path: Path) -> None:
    # A rename is lost with the machine unless its directory is flushed too.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems refuse to flush a directory
    finally:
        os.close(descriptor)
