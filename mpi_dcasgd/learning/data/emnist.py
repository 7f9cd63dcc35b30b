"""EMNIST: handwritten digits and letters in MNIST's format (Cohen et al. 2017)."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.data.idx_images import IdxImages

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ALL = tuple(string.digits + string.ascii_uppercase + string.ascii_lowercase)
_MERGED = tuple(string.digits + string.ascii_uppercase + "abdefghnqrt")
"""Without the lower-case letters that look like the capital ones."""

_SPLITS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "balanced": (112_800, 18_800, _MERGED),
    "byclass": (697_932, 116_323, _ALL),
    "bymerge": (697_932, 116_323, _MERGED),
    "digits": (240_000, 40_000, tuple(string.digits)),
    "letters": (124_800, 20_800, tuple(string.ascii_lowercase)),
    "mnist": (60_000, 10_000, tuple(string.digits)),
}
"""Training images, test images and classes of each."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Emnist(IdxImages):
    """EMNIST, handwritten digits and letters of 28 x 28 pixels, from the published IDX files."""

    mean: ClassVar[float] = 0.1736
    std: ClassVar[float] = 0.3317
    source: ClassVar[str] = (
        "fetch gzip.zip from https://www.nist.gov/itl/products-and-services/emnist-dataset where "
        "there is a network, and unpack it"
    )

    name: Literal["emnist"] = "emnist"
    split: Annotated[
        Literal["balanced", "byclass", "bymerge", "digits", "letters", "mnist"],
        Field(
            description="part of EMNIST: byclass 62 classes, bymerge and balanced 47, letters 26, "
            "digits and mnist 10"
        ),
    ] = "balanced"

    def prefixes(self) -> tuple[str, str]:
        return f"emnist-{self.split}-train", f"emnist-{self.split}-test"

    def sizes(self) -> tuple[int, int]:
        return _SPLITS[self.split][:2]

    def class_names(self) -> tuple[str, ...]:
        return _SPLITS[self.split][2]

    def first_label(self) -> int:
        return 1 if self.split == "letters" else 0

    def arrange(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        # The files have columns where MNIST's have rows.
        return images.transpose(0, 2, 1)
