"""Kuzushiji-MNIST: cursive Japanese characters in MNIST's format (Clanuwat et al. 2018)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.data.idx_images import IdxImages


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Kmnist(IdxImages):
    """Kuzushiji-MNIST, 70000 cursive Japanese characters of 28 x 28 pixels, from IDX files."""

    classes: ClassVar[tuple[str, ...]] = (
        "o",
        "ki",
        "su",
        "tsu",
        "na",
        "ha",
        "ma",
        "ya",
        "re",
        "wo",
    )
    mean: ClassVar[float] = 0.1918
    std: ClassVar[float] = 0.3483
    source: ClassVar[str] = (
        "fetch the four files from http://codh.rois.ac.jp/kmnist/ where there is a network"
    )

    name: Literal["kmnist"] = "kmnist"
