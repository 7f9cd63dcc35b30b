"""CIFAR-10 from the folder that its authors publish, read by torchvision, held as bytes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT, DataError
from mpi_dcasgd.learning.data.dataset import Dataset, Facts
from mpi_dcasgd.learning.data.source import Augment, DataSource, check_path, expanded

if TYPE_CHECKING:
    import torch

FACTS = Facts(
    num_train=50_000,
    num_test=10_000,
    num_classes=10,
    input_shape=(3, 32, 32),
    resident_bytes=60_000 * (3 * 32 * 32 + 8),
)
_FOLDER = "cifar-10-batches-py"
_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Of each channel over the training pixels, scaled to [0, 1]."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cifar10(DataSource):
    """CIFAR-10, 60000 photographs of 32 x 32 pixels, from the folder that its authors publish."""

    name: Literal["cifar10"] = "cifar10"
    path: Annotated[
        str | None,
        Field(
            description="must be given: the folder that holds cifar-10-batches-py; ~ and "
            "$VARIABLES are expanded"
        ),
    ] = None
    augment: Annotated[
        Augment,
        Field(
            description="random changes of training images; standard: crops and flips (He et al. "
            "2016), auto: standard"
        ),
    ] = "auto"

    def check(self) -> list[str]:
        return check_path(self.name, self.path)

    def known(self) -> Facts:
        return FACTS

    def facts(self) -> Facts:
        _check_folder(expanded(self.path))
        return FACTS

    def load(self, seed: int, device: torch.device) -> Dataset:
        import numpy as np

        from mpi_dcasgd.learning.data.images import ImageSplit, Jitter, Normalise

        path = expanded(self.path)
        _check_folder(path)
        train = _read(path, train=True)
        test = _read(path, train=False)
        normalise = Normalise(_MEAN, _STD, 255, device)
        jitter = None if self.augment == "none" else Jitter(padding=4, flip=True)
        splits = []
        for found, how in ((train, jitter), (test, None)):
            images = np.asarray(found.data, dtype=np.uint8).transpose(0, 3, 1, 2)
            splits.append(ImageSplit(images, np.asarray(found.targets), normalise, how, device))
        return Dataset(
            name="cifar10",
            train=splits[0],
            test=splits[1],
            num_classes=FACTS.num_classes,
            input_shape=FACTS.input_shape,
            class_names=tuple(train.classes),
        )


def _check_folder(path: Path) -> None:
    """Raise DataError, saying how to get the data, where their folder is not below ``path``."""
    folder = path / _FOLDER
    if not folder.is_dir():
        raise DataError(
            f"cifar10: {folder} does not exist; data.path must name the folder that holds "
            f"{_FOLDER}. Jobs never download: fetch cifar-10-python.tar.gz from "
            f"https://www.cs.toronto.edu/~kriz/cifar.html where there is a network, and unpack it "
            f"with `tar xzf cifar-10-python.tar.gz -C {path}`"
        )


def _read(path: Path, *, train: bool) -> Any:
    from mpi_dcasgd.learning.vision import torchvision

    datasets = torchvision().datasets
    try:
        with warnings.catch_warnings():
            # The published pickles are of 2009: some NumPy releases warn of how they spell a dtype.
            warnings.simplefilter("ignore")
            return datasets.CIFAR10(str(path), train=train, download=False)
    except (RuntimeError, OSError, ValueError) as error:
        raise DataError(
            f"cifar10: the files in {path / _FOLDER} are incomplete or not the published ones "
            f"(their MD5 sums are checked); unpack cifar-10-python.tar.gz again ({error})"
        ) from error
