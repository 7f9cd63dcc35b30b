"""Text of one's own, for models that predict the next token: bytes or characters of a file.

The last part of the text is for testing, and the last part of what is left for validation, so
that no window of one split overlaps another's. The tokens lie on the device; a batch is a few
numbers, where its windows begin.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT, DataError
from mpi_dcasgd.learning.data.dataset import Dataset, Facts, ResidentSplit
from mpi_dcasgd.learning.data.source import DataSource, check_path, expanded
from mpi_dcasgd.learning.settings import Count

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Text(DataSource):
    """Windows of a text file, in bytes or in characters, with the next token as the target."""

    name: Literal["text"] = "text"
    path: Annotated[
        str | None,
        Field(description="must be given: the text file; ~ and $VARIABLES are expanded"),
    ] = None
    tokens: Annotated[
        Literal["bytes", "characters"],
        Field(
            description="bytes: a vocabulary of 256, for any file; characters: those of the file, "
            "which must be UTF-8"
        ),
    ] = "bytes"
    window: Annotated[Count, Field(description="tokens of a sample")] = 64
    stride: Annotated[
        Count | None,
        Field(
            description="tokens from the start of one training window to the next; null: as many "
            "as a window has, so that none overlap"
        ),
    ] = None
    test: Annotated[
        float, Field(gt=0, lt=1, description="fraction of the text, at its end, for testing")
    ] = 0.1

    def check(self) -> list[str]:
        return check_path(self.name, self.path, "the text file")

    def facts(self) -> Facts:
        tokens, names = _read(expanded(self.path), self.tokens)
        parts = self._cut(len(tokens))
        return Facts(
            num_train=self._windows(parts.train, self.stride),
            num_test=self._windows(parts.test),
            num_validation=self._windows(parts.validation) if self.validation else 0,
            num_classes=len(names),
            input_shape=(self.window,),
            resident_bytes=tokens.nbytes,
        )

    def load(self, seed: int, device: torch.device) -> Dataset:
        import torch

        read, names = _read(expanded(self.path), self.tokens)
        parts = self._cut(len(read))
        tokens = torch.from_numpy(read).to(device)

        def split(part: range, stride: int | None = None) -> TextSplit:
            of_part = tokens[part.start : part.stop]
            return TextSplit(of_part, self.window, stride or self.window)

        return Dataset(
            name="text",
            train=split(parts.train, self.stride),
            test=split(parts.test),
            validation=split(parts.validation) if self.validation else None,
            num_classes=len(names),
            input_shape=(self.window,),
            class_names=names,
        )

    def _windows(self, part: range, stride: int | None = None) -> int:
        return count_windows(len(part), self.window, stride or self.window)

    def _cut(self, length: int) -> Parts:
        """Cut the text into its parts, none of which may be shorter than a window."""
        end = length - round(self.test * length)
        middle = end - round(self.validation * end)
        parts = Parts(range(middle), range(middle, end), range(end, length))
        for kind, part in zip(("training", "validation", "test"), parts, strict=True):
            needed = kind != "validation" or self.validation > 0
            if needed and len(part) <= self.window:
                raise DataError(
                    f"text: {expanded(self.path)} has {length} {self.tokens}, {len(part)} of them "
                    f"for the {kind} part (data.test={self.test:g}, "
                    f"data.validation={self.validation:g}); it needs {self.window + 1} at least, "
                    "a window and the token after it: choose a smaller data.window, other "
                    "fractions, or a longer text"
                )
        return parts


class Parts(NamedTuple):
    """The tokens of each split, as they follow each other in the text."""

    train: range
    validation: range
    test: range


class TextSplit(ResidentSplit):
    """Windows of a text that lies on the device as one vector of tokens.

    Args:
        tokens: (n,), any integers, with n > window.
        window: Tokens of a sample.
        stride: Tokens from the start of one window to the next.

    Example:
        >>> split = TextSplit(torch.arange(7), window=3, stride=2)
        >>> [part.tolist() for part in split.batch(np.array([0, 1]), None)]
        [[[0, 1, 2], [2, 3, 4]], [[1, 2, 3], [3, 4, 5]]]
    """

    augments = False

    def __init__(self, tokens: Tensor, window: int, stride: int) -> None:
        import torch

        self.device = tokens.device
        self._tokens = tokens
        self._stride = stride
        self._count = count_windows(len(tokens), window, stride)
        self._span = torch.arange(window + 1, device=tokens.device)

    def __len__(self) -> int:
        return self._count

    def recipe(
        self, indices: NDArray[np.int64], rng: np.random.Generator | None
    ) -> NDArray[np.int64]:
        return indices[None] * self._stride

    def make(self, recipe: Tensor) -> tuple[Tensor, Tensor]:
        (starts,) = recipe
        found = self._tokens[starts[:, None] + self._span].long()
        return found[:, :-1].contiguous(), found[:, 1:].contiguous()


def count_windows(length: int, window: int, stride: int) -> int:
    """Return how many windows fit into a text, each followed by one more token."""
    return (length - window - 1) // stride + 1 if length > window else 0


def _read(file: Path, kind: str) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    """The tokens of a file and the names of all that there are."""
    import numpy as np

    if not file.is_file():
        raise DataError(f"text: no file {file}; data.path must name a text file")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"text: {file} cannot be read: {error}") from error
    if kind == "bytes":
        return np.frombuffer(bytearray(content), dtype=np.uint8), _BYTE_NAMES
    points = np.frombuffer(_decode(content, file).encode("utf-32-le"), dtype="<u4")
    found, tokens = np.unique(points, return_inverse=True)
    smallest = np.uint8 if len(found) <= 256 else np.int32
    return tokens.reshape(-1).astype(smallest), tuple(map(chr, found.tolist()))


def _decode(content: bytes, file: Path) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"text: {file} is not UTF-8: byte {error.start} (in line {line}) is "
            f"0x{content[error.start]:02x}, {error.reason}; convert the file, or set "
            "data.tokens=bytes"
        ) from error


_BYTE_NAMES = tuple(chr(i) if 32 < i < 127 else f"0x{i:02x}" for i in range(256))
