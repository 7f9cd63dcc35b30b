"""A text file that a run appends to, and that a resume cuts back to its checkpoint."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.hangs import working_on


class AppendedFile:
    """Text file whose lines are handed to the system as soon as they are written.

    Args:
        path: The file.
        offset: Bytes of it that stay; what lies behind them is cut off. None for all.

    Raises:
        RunFolderError: The file cannot be written, or is shorter.
    """

    def __init__(self, path: Path, offset: int | None = None) -> None:
        self._path = path
        try:
            if offset is not None:
                if path.stat().st_size < offset:
                    raise RunFolderError(
                        f"{path}: has {path.stat().st_size} bytes, but the checkpoint resumes "
                        f"after {offset}: it is not the file that belongs to it"
                    )
                os.truncate(path, offset)
            with working_on(path):
                self._file = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be written: {error.strerror}") from error

    def append(self, text: str) -> None:
        """Write one line or several.

        Raises:
            RunFolderError: The file cannot be written.
        """
        try:
            with working_on(self._path):
                self._file.write(text)
        except OSError as error:
            raise RunFolderError(f"{self._path}: cannot be written: {error.strerror}") from error

    @property
    def offset(self) -> int:
        """Bytes written so far, those of before included."""
        with working_on(self._path):
            self._file.flush()
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file."""
        with (
            working_on(self._path),
            suppress(OSError),
        ):  # lines that could not be written have been told
            self._file.close()
