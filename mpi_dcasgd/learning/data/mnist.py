"""MNIST: handwritten digits (LeCun et al. 1998)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.data.idx_images import IdxImages


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Mnist(IdxImages):
    """MNIST, 70000 handwritten digits of 28 x 28 pixels, from the published IDX files."""

    classes: ClassVar[tuple[str, ...]] = tuple("0123456789")
    mean: ClassVar[float] = 0.1307
    std: ClassVar[float] = 0.3081
    source: ClassVar[str] = (
        "fetch the four files from https://ossci-datasets.s3.amazonaws.com/mnist/ where there is "
        "a network"
    )

    name: Literal["mnist"] = "mnist"
