"""Fashion-MNIST: articles of clothing in MNIST's format, but harder (Xiao et al. 2017)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.data.idx_images import IdxImages


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FashionMnist(IdxImages):
    """Fashion-MNIST, 70000 articles of clothing of 28 x 28 pixels, from the published IDX files."""

    classes: ClassVar[tuple[str, ...]] = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    mean: ClassVar[float] = 0.2860
    std: ClassVar[float] = 0.3530
    source: ClassVar[str] = (
        "`apt-get install dataset-fashion-mnist` puts the files into "
        "/usr/share/datasets/fashion-mnist, or fetch them from "
        "https://github.com/zalandoresearch/fashion-mnist where there is a network"
    )

    name: Literal["fashion-mnist"] = "fashion-mnist"
