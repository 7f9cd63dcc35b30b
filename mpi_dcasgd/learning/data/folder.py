"""Any images in folders named after their classes, in ImageNet's layout.

``path/train/<class>/*.jpg`` and ``path/val/<class>/*.jpg`` (or ``test``). Pillow reads the files.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT, DataError
from mpi_dcasgd.learning.data.dataset import Dataset, Facts
from mpi_dcasgd.learning.data.listing import Listing, list_images
from mpi_dcasgd.learning.data.source import Augment, DataSource, check_path, expanded
from mpi_dcasgd.learning.settings import Count, Threads

if TYPE_CHECKING:
    import torch

    from mpi_dcasgd.learning.data.folder_split import FolderSplit

SMALL = 64
"""Largest ``image_size`` that is treated as on CIFAR; decoded images of this size can be cached."""

_CACHE_LIMIT = 2**30

_told: dict[tuple[Path, Path], tuple[Listing, Listing]] = {}
"""What rank 0 listed, by the folders of the training and of the test images."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ImageFolder(DataSource):
    """Any images in folders named after their classes, in ImageNet's layout."""

    name: Literal["imagefolder"] = "imagefolder"
    path: Annotated[
        str | None,
        Field(
            description="must be given: the folder that holds the splits; ~ and $VARIABLES are "
            "expanded"
        ),
    ] = None
    augment: Annotated[
        Augment,
        Field(
            description="random changes of training images; standard: crops and flips, as on "
            "ImageNet (of up to 64 pixels as on CIFAR), auto: standard"
        ),
    ] = "auto"
    image_size: Annotated[Count, Field(description="height and width given to the model")] = 224
    train_split: Annotated[
        str, Field(min_length=1, description="folder of the training images")
    ] = "train"
    test_split: Annotated[
        str | None,
        Field(
            min_length=1,
            description="folder of the test images; null: test or val, whichever exists",
        ),
    ] = None
    loaders: Annotated[Threads, Field(description="threads of each rank that decode images")] = 4
    cache: Annotated[
        Literal["auto", "on", "off"],
        Field(
            description="keep decoded images of up to 64 pixels in memory; auto: if a split takes "
            "less than 1 GiB"
        ),
    ] = "auto"

    @property
    def tickets_ahead(self) -> int:
        return 2

    def check(self) -> list[str]:
        problems = check_path(self.name, self.path)
        if self.cache == "on" and self.image_size > SMALL:
            problems.append(
                f"cache: on needs image_size <= {SMALL}, got {self.image_size}: larger "
                "images are cropped anew from the file each time"
            )
        return problems

    def facts(self) -> Facts:
        train, test = self._listed()
        return Facts(
            num_train=len(train.paths),
            num_test=len(test.paths),
            num_classes=len(train.classes),
            input_shape=(3, self.image_size, self.image_size),
            resident_bytes=sum(
                sum(map(len, split.paths)) + self._cache_bytes(len(split.paths))
                for split in (train, test)
            ),
        )

    def load(self, seed: int, device: torch.device) -> Dataset:
        train, test = self._listed()
        _told.pop(self._folders(), None)  # another run of this process may find other files
        executor = ThreadPoolExecutor(self.loaders, "decode") if self.loaders > 1 else None
        augment = self.augment != "none"
        return Dataset(
            name="imagefolder",
            train=self._split(train, augment, executor, device),
            test=self._split(test, False, executor, device),
            num_classes=len(train.classes),
            input_shape=(3, self.image_size, self.image_size),
            class_names=train.classes,
            left_out=tuple(
                f"{words} in {folder}"
                for folder, listing in zip(self._folders(), (train, test), strict=True)
                for words in listing.left_out
            ),
        )

    def find_files(self) -> None:
        self._folders()

    def list_files(self) -> tuple[Listing, Listing]:
        """List the training and the test images, in an order that is the same on every machine.

        Raises:
            DataError: A folder is missing, empty, or the two do not have the same classes.
        """
        train_folder, test_folder = self._folders()
        train, test = list_images(train_folder), list_images(test_folder)
        if train.classes != test.classes:
            apart = sorted(set(train.classes) ^ set(test.classes))
            raise DataError(
                f"imagefolder: {train_folder} and {test_folder} must hold folders of the same "
                f"names, one a class; only one of them has {', '.join(apart[:5])}"
                + (f" and {len(apart) - 5} more" if len(apart) > 5 else "")
            )
        return train, test

    def _listed(self) -> tuple[Listing, Listing]:
        """Take what rank 0 has told, or what is found here."""
        told = _told.get(self._folders())
        return self.list_files() if told is None else told

    def tell_files(self, found: tuple[Listing, Listing]) -> None:
        _told[self._folders()] = found

    def _folders(self) -> tuple[Path, Path]:
        """Find the training and the test images, without a look inside."""
        path = expanded(self.path)
        train_folder = path / self.train_split
        _need(train_folder, "training images", "data.train_split")
        test_folder = _test_folder(path, self.test_split)
        if train_folder.samefile(test_folder):
            raise DataError(
                f"imagefolder: {train_folder} and {test_folder} are one folder: what is trained on "
                "would be tested on; set images for testing apart, and name their folder in "
                "data.test_split"
            )
        return train_folder, test_folder

    def _split(
        self,
        listing: Listing,
        augment: bool,
        executor: ThreadPoolExecutor | None,
        device: torch.device,
    ) -> FolderSplit:
        from mpi_dcasgd.learning.data.folder_split import FolderSplit

        return FolderSplit(
            listing,
            self.image_size,
            augment=augment,
            cache=self._cache_bytes(len(listing.paths)) > 0,
            threads=self.loaders,
            executor=executor,
            device=device,
        )

    def _cache_bytes(self, count: int) -> int:
        """Size of the cache of a split of ``count`` images, 0 for none."""
        size = count * self.image_size**2 * 3
        if self.cache == "auto":
            return size if self.image_size <= SMALL and size <= _CACHE_LIMIT else 0
        return size if self.cache == "on" else 0


def _test_folder(path: Path, test_split: str | None) -> Path:
    if test_split is not None:
        folder = path / test_split
        _need(folder, "test images", "data.test_split")
        return folder
    found = [path / name for name in ("test", "val") if (path / name).is_dir()]
    if len(found) == 1:
        return found[0]
    seen = "has both test and val" if found else f"has neither test nor val ({_contents(path)})"
    raise DataError(f"imagefolder: {path} {seen}; name the test images' folder: data.test_split")


def _need(folder: Path, what: str, key: str) -> None:
    if not folder.is_dir():
        raise DataError(
            f"imagefolder: no folder {folder} for the {what} ({_contents(folder.parent)}); "
            f"check data.path and {key}"
        )


def _contents(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} does not exist"
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    return f"folders in {folder}: {', '.join(names[:8]) or 'none'}{', ...' * (len(names) > 8)}"
