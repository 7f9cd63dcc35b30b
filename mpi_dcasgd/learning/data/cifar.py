"""CIFAR-10, and the base of CIFAR-100: published folders, read by torchvision, held as bytes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT, DataError
from mpi_dcasgd.learning.data.dataset import Dataset, Facts
from mpi_dcasgd.learning.data.source import Augment, DataSource, check_path, expanded

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cifar(DataSource):
    """Photographs of 32 x 32 pixels in a folder that the authors of CIFAR publish.

    Attributes:
        archive: The published file, without ``.tar.gz``.
        folder: What is in it.
        reader: torchvision's class for it.
        mean, std: Of each channel over the training pixels, scaled to [0, 1].
    """

    archive: ClassVar[str]
    folder: ClassVar[str]
    reader: ClassVar[str]
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]

    path: Annotated[
        str | None,
        Field(
            description="must be given: the folder that holds cifar-10-batches-py, or "
            "cifar-100-python; ~ and $VARIABLES are expanded"
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
        return Facts(
            num_train=50_000,
            num_test=10_000,
            num_classes=self.count_classes(),
            input_shape=(3, 32, 32),
            resident_bytes=60_000 * (3 * 32 * 32 + 8),
        )

    def facts(self) -> Facts:
        self._find_folder()
        return self.known()

    def load(self, seed: int, device: torch.device) -> Dataset:
        import numpy as np

        from mpi_dcasgd.learning.data.images import ImageSplit, Jitter, Normalise

        folder = self._find_folder()
        normalise = Normalise(self.mean, self.std, 255, device)
        jitter = None if self.augment == "none" else Jitter(padding=4, flip=True)
        splits = []
        for train, how in ((True, jitter), (False, None)):
            found = self._read(folder, train=train)
            images = np.asarray(found.data, dtype=np.uint8).transpose(0, 3, 1, 2)
            targets, names = self.labels_of(found, folder)
            splits.append(ImageSplit(images, np.asarray(targets), normalise, how, device))
        return Dataset(
            name=self.name,
            train=splits[0],
            test=splits[1],
            num_classes=self.count_classes(),
            input_shape=(3, 32, 32),
            class_names=tuple(names),
        )

    def count_classes(self) -> int:
        """Return the number of classes that the settings ask for."""
        raise NotImplementedError

    def labels_of(self, found: Any, folder: Path) -> tuple[list[int], list[str]]:
        """Return the targets of a split and the names of the classes.

        Args:
            found: The split as torchvision has read it, whose files are the published ones.
            folder: The folder of those files.
        """
        return found.targets, found.classes

    def _find_folder(self) -> Path:
        """Raise DataError, saying how to get the data, where their folder is not below ``path``."""
        path = expanded(self.path)
        folder = path / self.folder
        if not folder.is_dir():
            raise DataError(
                f"{self.name}: {folder} does not exist; data.path must name the folder that holds "
                f"{self.folder}. Jobs never download: fetch {self.archive}.tar.gz from "
                f"https://www.cs.toronto.edu/~kriz/cifar.html where there is a network, and unpack "
                f"it with `tar xzf {self.archive}.tar.gz -C {path}`"
            )
        return folder

    def _read(self, folder: Path, *, train: bool) -> Any:
        from mpi_dcasgd.vision import torchvision

        reader = getattr(torchvision().datasets, self.reader)
        try:
            with warnings.catch_warnings():
                # The published pickles are of 2009: some NumPy releases warn of how they spell a
                # dtype.
                warnings.simplefilter("ignore")
                return reader(str(folder.parent), train=train, download=False)
        except (RuntimeError, OSError, ValueError) as error:
            raise DataError(
                f"{self.name}: the files in {folder} are incomplete or not the published ones "
                f"(their MD5 sums are checked); unpack {self.archive}.tar.gz again ({error})"
            ) from error


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cifar10(Cifar):
    """CIFAR-10, 60000 photographs of 32 x 32 pixels, from the folder that its authors publish."""

    archive: ClassVar[str] = "cifar-10-python"
    folder: ClassVar[str] = "cifar-10-batches-py"
    reader: ClassVar[str] = "CIFAR10"
    mean: ClassVar[tuple[float, ...]] = (0.4914, 0.4822, 0.4465)
    std: ClassVar[tuple[float, ...]] = (0.2470, 0.2435, 0.2616)

    name: Literal["cifar10"] = "cifar10"

    def count_classes(self) -> int:
        return 10
