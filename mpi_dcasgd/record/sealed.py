"""Files of PyTorch that tell whether they are what was written: a SHA-256 at their end.

``torch.save`` writes a zip archive, and an archive may end with a comment, which ``torch.load``
passes over. The digest stands there, so that a file stays one that needs nothing of this package.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

MARK = b"sha256:"
_DIGEST = hashlib.sha256().digest_size * 2
_COMMENT = len(MARK) + _DIGEST
_LENGTH = struct.Struct("<H")
_CHUNK = 1 << 20


class DamagedError(Exception):
    """A file is not what was written."""


def save_sealed(content: Any, file: BinaryIO, alive: Callable[[], None] = lambda: None) -> None:
    """Save as ``torch.save`` does, with a digest of all bytes.

    Args:
        content: What ``torch.save`` takes.
        file: Empty, and open for writing.
        alive: Called with each piece that has been written.

    Raises:
        OSError: The file cannot be written.
    """
    hashing = _Hashing(file, alive)
    try:
        torch.save(content, cast("IO[bytes]", hashing))
    except RuntimeError:  # all that PyTorch says of a full disk is a position in the archive
        if hashing.failure:
            raise hashing.failure from None
        raise
    file.flush()
    # The archive's last two bytes are the length of its comment, none so far.
    file.seek(-_LENGTH.size, io.SEEK_END)
    file.write(_LENGTH.pack(_COMMENT) + MARK + hashing.digest.hexdigest().encode())


def load_sealed(path: Path) -> Any:
    """Load what ``torch.save`` wrote, on the CPU, if it is what was written.

    A file without a digest, as earlier versions and others write it, is held against the checksums
    that the archive has of each of its parts, which ``torch.load`` does not look at.

    Raises:
        DamagedError: It is not.
        OSError: It cannot be read.
        Exception: Whatever a file that is something else makes PyTorch raise.
    """
    with open(path, "rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - _COMMENT))
        end = file.read()
        if end.startswith(MARK) and len(end) == _COMMENT:
            if _digest(file, size - _COMMENT - _LENGTH.size) != end[len(MARK) :].decode("latin-1"):
                raise DamagedError("its bytes do not match their digest")
        elif zipfile.is_zipfile(file):
            _check_parts(file)
    return torch.load(path, map_location="cpu", weights_only=True)


class _Hashing:
    """A file to write into that keeps the digest of all that was written."""

    def __init__(self, file: BinaryIO, alive: Callable[[], None]) -> None:
        self._file = file
        self._alive = alive
        self.digest = hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, content: Any) -> int:
        self.digest.update(content)
        try:
            written = self._file.write(content)
        except OSError as error:
            self.failure = self.failure or error
            raise
        self._alive()
        return written

    def flush(self) -> None:
        self._file.flush()


def _digest(file: BinaryIO, length: int) -> str:
    """The digest of the first ``length`` bytes, behind which a comment of none is written."""
    digest = hashlib.sha256()
    file.seek(0)
    while length > 0 and (chunk := file.read(min(_CHUNK, length))):
        digest.update(chunk)
        length -= len(chunk)
    digest.update(_LENGTH.pack(0))
    return digest.hexdigest()


def _check_parts(file: BinaryIO) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, OSError) as error:
        raise DamagedError(f"its archive is damaged: {error}") from error
    if damaged is not None:
        raise DamagedError(f"{damaged} in it does not match its checksum")
