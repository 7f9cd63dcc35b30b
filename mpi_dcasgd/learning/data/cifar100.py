"""CIFAR-100 from the folder that its authors publish: 100 classes in 20 groups."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.data.cifar import Cifar


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cifar100(Cifar):
    """CIFAR-100, 60000 photographs of 32 x 32 pixels, from the folder that its authors publish."""

    archive: ClassVar[str] = "cifar-100-python"
    folder: ClassVar[str] = "cifar-100-python"
    reader: ClassVar[str] = "CIFAR100"
    mean: ClassVar[tuple[float, ...]] = (0.5071, 0.4865, 0.4409)
    std: ClassVar[tuple[float, ...]] = (0.2673, 0.2564, 0.2762)

    name: Literal["cifar100"] = "cifar100"
    labels: Annotated[
        Literal["fine", "coarse"],
        Field(description="fine: the 100 classes; coarse: the 20 groups that they are in"),
    ] = "fine"

    def count_classes(self) -> int:
        return 100 if self.labels == "fine" else 20

    def labels_of(self, found: Any, folder: Path) -> tuple[list[int], list[str]]:
        if self.labels == "fine":
            return super().labels_of(found, folder)
        # torchvision leaves the groups out. It has checked the MD5 sums of these very pickles.
        content = _unpickle(folder / ("train" if found.train else "test"))
        return content["coarse_labels"], _unpickle(folder / "meta")["coarse_label_names"]


def _unpickle(file: Path) -> dict[str, Any]:
    with warnings.catch_warnings(), file.open("rb") as opened:
        warnings.simplefilter("ignore")  # of the old pickles, as in ``Cifar``
        content: dict[str, Any] = pickle.load(opened, encoding="latin1")
    return content
