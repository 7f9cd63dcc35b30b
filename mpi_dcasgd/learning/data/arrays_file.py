"""The .npz file of the data set ``arrays``, read without pickles and checked array by array."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from mpi_dcasgd.errors import DataError, did_you_mean

_SPLITS = ("train", "test", "validation")
_KEYS = [f"{axis}_{split}" for split in _SPLITS for axis in "xy"]
_FEW = 1000
"""Number of classes that is never too many."""

_DAMAGE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, ValueError, RuntimeError)
"""What reading a damaged archive raises; RuntimeError and its kin if it is encrypted."""

T = TypeVar("T")


class _Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


class ArraysFile:
    """An open .npz file whose arrays belong together, as their headers say.

    Args:
        path: The file.
        validation: Fraction of the training samples that the job takes for validation.

    Attributes:
        splits: ``train`` and ``test``, and ``validation`` if the file has one.
        has_classes: Whether targets are classes; else they are numbers.

    Raises:
        DataError: It is no such file, or its arrays do not fit together.
    """

    def __init__(self, path: Path, *, validation: float = 0.0) -> None:
        if not path.is_file():
            raise DataError(f"arrays: no file {path}; data.path must name a .npz file")
        self._path = path
        self._open = ExitStack()
        if not zipfile.is_zipfile(path):
            raise self._wrong("is not a .npz file, or is truncated; write it with numpy.savez")
        self._archive = self._reading(
            "the archive", lambda: self._open.enter_context(zipfile.ZipFile(path))
        )
        with ExitStack() as on_error:
            on_error.callback(self._open.close)
            keys = self._keys(validation)
            self.splits = tuple(split for split in _SPLITS if f"x_{split}" in keys)
            self._headers = {key: self._header(key) for key in keys}
            self._check_inputs()
            self._check_targets()
            on_error.pop_all()
        self.has_classes = self._headers["y_train"].dtype.kind != "f"
        self._num_classes: int | None = None

    def __enter__(self) -> ArraysFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    @property
    def element_bytes(self) -> int:
        """Memory of one number of a sample, as ``inputs`` returns it."""
        return 1 if self._headers["x_train"].dtype == np.uint8 else 4

    def shape(self, split: str) -> tuple[int, ...]:
        """Return the shape of a split's inputs."""
        return self._headers[f"x_{split}"].shape

    def num_outputs(self) -> int:
        """Return the number of classes of the training samples, or of numbers to predict."""
        if not self.has_classes:
            shape = self._headers["y_train"].shape
            return shape[1] if len(shape) == 2 else 1
        if self._num_classes is None:
            self._num_classes = self._count_classes()
        return self._num_classes

    def inputs(self, split: str) -> NDArray[np.generic]:
        """Read a split's inputs: uint8, or finite float32."""
        return self._finite(f"x_{split}")

    def targets(self, split: str) -> NDArray[np.generic]:
        """Read a split's targets: int64 from 0, or finite float32."""
        key = f"y_{split}"
        if not self.has_classes:
            return self._finite(key)
        labels = self._read(key).astype(np.int64)
        count = self.num_outputs()
        beyond = np.flatnonzero((labels < 0) | (labels >= count))
        if len(beyond):
            raise self._wrong(
                f"{key}[{beyond[0]}] is {labels[beyond[0]]}; with the classes of y_train, labels "
                f"are 0 to {count - 1}"
            )
        return labels

    def _keys(self, validation: float) -> list[str]:
        """The arrays that are used; all that are needed must be there."""
        found = [name.removesuffix(".npy") for name in self._archive.namelist()]
        # Of other names that look like ours, one is probably a misspelt x_validation.
        strange = [key for key in found if key[:2] in ("x_", "y_") and key not in _KEYS]
        wanted = _KEYS[:4] + (_KEYS[4:] if {*_KEYS[4:]} & {*found} else [])
        for key in wanted:
            if key not in found:
                hint = did_you_mean(key, [name for name in found if name not in _KEYS])
                names = ", ".join(found[:8]) or "nothing"
                raise self._wrong(f"has no {key} (it has {names}){hint}")
        if strange:
            hint = did_you_mean(strange[0], _KEYS)
            raise self._wrong(f"has {strange[0]}; allowed: {', '.join(_KEYS)}{hint}")
        if len(wanted) > 4 and validation:
            raise self._wrong(
                f"has x_validation, so that data.validation={validation:g} would take more; omit "
                "one of the two"
            )
        return wanted

    def _header(self, key: str) -> _Header:
        def read(member: IO[bytes]) -> _Header:
            version = np.lib.format.read_magic(member)
            one = np.lib.format.read_array_header_1_0
            two = np.lib.format.read_array_header_2_0
            shape, _, dtype = (one if version == (1, 0) else two)(member)
            return _Header(shape, dtype)

        return self._member(key, read)

    def _read(self, key: str) -> NDArray[np.generic]:
        array: NDArray[np.generic] = self._member(
            key, lambda member: np.lib.format.read_array(member, allow_pickle=False)
        )
        return array

    def _finite(self, key: str) -> NDArray[np.generic]:
        array = self._read(key)
        if array.dtype == np.uint8:
            return np.ascontiguousarray(array)
        with np.errstate(over="ignore"):  # to infinity, which is reported below
            array = np.ascontiguousarray(array, dtype=np.float32)
        finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
        if not finite.all():
            wrong = np.flatnonzero(~finite)
            raise self._wrong(
                f"{key}[{wrong[0]}] is not finite in float32, as {len(wrong)} of {len(array)} "
                "samples are not; remove or replace them"
            )
        return array

    def _check_inputs(self) -> None:
        for split in self.splits:
            key = f"x_{split}"
            (shape, dtype), targets = self._headers[key], self._headers[f"y_{split}"].shape
            if dtype != np.uint8 and dtype.kind != "f":
                raise self._wrong(f"{key} is of type {dtype}; allowed: floats, or uint8 for images")
            if len(shape) < 2:
                raise self._wrong(
                    f"{key} has the shape {shape}; allowed: (samples, features), or images "
                    "(samples, channels, height, width)"
                )
            if not np.prod(shape):
                raise self._wrong(f"{key} is empty, of shape {shape}; there must be a sample")
            if shape[0] != (targets[0] if targets else 0):
                raise self._wrong(
                    f"{key} has the shape {shape}, y_{split} {targets}; both must begin with the "
                    "number of samples"
                )
            self._alike(key, "x_train", shape[1:], self.shape("train")[1:])
            if (dtype == np.uint8) != (self._headers["x_train"].dtype == np.uint8):
                raise self._wrong(
                    f"{key} is of type {dtype}, x_train {self._headers['x_train'].dtype}; bytes "
                    "are scaled to [0, 1] and floats are not: give both as one of them"
                )

    def _check_targets(self) -> None:
        shape, dtype = self._headers["y_train"]
        for split in self.splits:
            key = f"y_{split}"
            mine, kind = self._headers[key]
            allowed = 1 if kind.kind in "iub" else 2 if kind.kind == "f" else 0
            if not 1 <= len(mine) <= allowed or 0 in mine:
                raise self._wrong(
                    f"{key} is of type {kind} and shape {mine}; allowed: whole numbers (samples,), "
                    "which are classes, or floats (samples,) or (samples, outputs)"
                )
            self._alike(key, "y_train", mine[1:], shape[1:])
            if len(mine) != len(shape) or (kind.kind == "f") != (dtype.kind == "f"):
                raise self._wrong(
                    f"{key} is of type {kind} and shape {mine}, y_train of type {dtype} and shape "
                    f"{shape}; both must be classes, or both be numbers"
                )

    def _alike(self, key: str, other: str, mine: tuple[int, ...], theirs: tuple[int, ...]) -> None:
        if mine != theirs:
            raise self._wrong(
                f"samples of {key} have the shape {mine}, those of {other} {theirs}; all must have "
                "one shape"
            )

    def _count_classes(self) -> int:
        labels = self._read("y_train")
        most, allowed = int(labels.max()), max(_FEW, len(labels))
        if not 1 <= most < allowed:
            raise self._wrong(
                f"the largest label in y_train is {most}; classes are numbered from 0, there are "
                f"two at least, and no more than {allowed} for {len(labels)} samples"
            )
        return most + 1

    def _member(self, key: str, read: Callable[[IO[bytes]], T]) -> T:
        def opened() -> T:
            name = f"{key}.npy" if f"{key}.npy" in self._archive.namelist() else key
            with self._archive.open(name) as member:
                return read(member)

        return self._reading(key, opened)

    def _reading(self, what: str, read: Callable[[], T]) -> T:
        try:
            return read()
        except MemoryError as error:
            raise self._wrong(f"{what} does not fit into memory: {error}") from error
        except _DAMAGE as error:
            raise self._wrong(
                f"{what} cannot be read, the file is truncated or damaged: {error}"
            ) from error

    def _wrong(self, what: str) -> DataError:
        return DataError(f"arrays: {self._path}: {what}")


def mean_and_deviation(
    inputs: NDArray[np.generic],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the mean and the standard deviation of each feature; 1 for one that is constant.

    Args:
        inputs: (n, *shape) with n > 0.
    """
    # By parts: in double precision, all at once may take eight times the memory of the data.
    parts = [inputs[start : start + 4096] for start in range(0, len(inputs), 4096)]
    mean = np.sum([part.sum(axis=0, dtype=np.float64) for part in parts], axis=0) / len(inputs)
    squares = np.sum([((part - mean) ** 2).sum(axis=0) for part in parts], axis=0)
    deviation = np.sqrt(squares / len(inputs))
    return mean, np.where(deviation > 0, deviation, 1.0)
