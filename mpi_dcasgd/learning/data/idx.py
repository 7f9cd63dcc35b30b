"""The IDX format of MNIST and its relatives: arrays of bytes behind a header, plain or gzipped.

The header is two zero bytes, a byte for the type of the elements, a byte for the number of
dimensions, and each dimension as a big-endian 32-bit number.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from mpi_dcasgd.errors import DataError, did_you_mean
from mpi_dcasgd.wording import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BYTES = 0x08
"""The type of unsigned bytes, the only one that image data sets have."""

_GZIP = b"\x1f\x8b"
_BLOCK = 2**20


def find_idx(folder: Path, name: str, origin: str) -> Path:
    """Find an IDX file in a folder, gzipped or not, with a dot for the last hyphen or not.

    Args:
        folder: Where to look.
        name: The published name, as in ``train-images-idx3-ubyte``.
        origin: Who asks, and for what, for the message.

    Raises:
        DataError: It is not there.
    """
    for stem in (name, name.replace("-idx", ".idx")):
        for file in (folder / stem, folder / f"{stem}.gz"):
            if file.is_file():
                return file
    if not folder.is_dir():
        raise DataError(f"{origin}: no folder {folder}; check data.path")
    seen = sorted(file.name for file in folder.iterdir() if file.is_file())
    listed = f"{', '.join(seen[:6]) or 'none'}{', ...' * (len(seen) > 6)}"
    hint = did_you_mean(name, seen)
    raise DataError(
        f"{origin}: {folder} holds no {name} and no {name}.gz (files there: {listed}){hint}; "
        "check data.path"
    )


def read_shape(file: Path, dimensions: int) -> tuple[int, ...]:
    """Read the header of a file of bytes, and nothing else of it.

    Args:
        file: Plain or gzipped; its content tells.
        dimensions: The number that it must have: 3 for images, 1 for labels.

    Raises:
        DataError: It cannot be read, or is no such file.
    """
    try:
        with _open(file) as opened:
            return _header(opened, file, dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(file, error) from error


def read_idx(file: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read a file of bytes.

    Args:
        file: Plain or gzipped; its content tells.
        dimensions: The number that it must have: 3 for images, 1 for labels.

    Returns:
        An array of the shape that its header says.

    Raises:
        DataError: It cannot be read, is no such file, is truncated, or has more than it says.

    Example:
        >>> labels = read_idx(Path("train-labels-idx1-ubyte.gz"), 1)  # doctest: +SKIP
        >>> labels.shape  # doctest: +SKIP
        (60000,)
    """
    import numpy as np

    try:
        with _open(file) as opened:
            shape = _header(opened, file, dimensions)
            size = math.prod(shape)
            # One byte more than there must be, so that what is behind the end is noticed.
            content = _read_up_to(opened, size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(file, error) from error
    if len(content) != size:
        seen = "more than" if len(content) > size else f"only {len(content)} of"
        raise DataError(
            f"{file}: {seen} the {size} bytes that follow from its header, {_times(shape)}; the "
            "file is truncated, or not the published one: fetch it again"
        )
    try:
        return np.frombuffer(content, dtype=np.uint8).reshape(shape)
    except ValueError as error:  # nothing, times more than any array has
        raise DataError(
            f"{file}: its header says {_times(shape)}; it is not the published file: fetch it again"
        ) from error


def _open(file: Path) -> IO[bytes]:
    with file.open("rb") as opened:
        packed = opened.read(2) == _GZIP
    return cast("IO[bytes]", gzip.open(file) if packed else file.open("rb"))


def _read_up_to(opened: IO[bytes], size: int) -> bytearray:
    """Read by blocks, since a header that lies must not make us ask for so much memory at once.

    Returns:
        Memory that can be written to: PyTorch warns of any other.
    """
    content = bytearray()
    while len(content) < size and (block := opened.read(min(size - len(content), _BLOCK))):
        content += block
    return content


def _header(opened: IO[bytes], file: Path, dimensions: int) -> tuple[int, ...]:
    magic = opened.read(4)
    expected = bytes((0, 0, _BYTES, dimensions))
    if magic != expected:
        what = {1: "labels", 3: "images"}.get(dimensions, "an array")
        raise DataError(
            f"{file}: begins with {_hex(magic)}; an IDX file of {what} (bytes in "
            f"{counted(dimensions, 'dimension')}) begins with {_hex(expected)}"
        )
    sizes = opened.read(4 * dimensions)
    if len(sizes) != 4 * dimensions:
        raise DataError(f"{file}: ends within its header; the file is truncated: fetch it again")
    return struct.unpack(f">{dimensions}I", sizes)


def _unreadable(file: Path, error: Exception) -> DataError:
    return DataError(f"{file}: cannot be read; truncated or damaged: fetch it again ({error})")


def _hex(content: bytes) -> str:
    return " ".join(f"{byte:02x}" for byte in content) or "nothing: it is empty"


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
