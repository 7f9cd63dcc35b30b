"""Any images in folders named after their classes, in ImageNet's layout.

``path/train/<class>/*.jpg`` and ``path/val/<class>/*.jpg`` (or ``test``). torchvision lists the
files, Pillow reads them. Images for the model of more than 64 pixels are trained on as on
ImageNet (random crops resized, middle crop for testing), smaller ones as on CIFAR.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpi_dcasgd.errors import DataError
from mpi_dcasgd.learning.data.dataset import Dataset, Facts
from mpi_dcasgd.learning.data.decode import Crop, centre_crop, random_crops, read_images
from mpi_dcasgd.learning.data.images import Jitter, Normalise
from mpi_dcasgd.learning.settings import DataSettings
from mpi_dcasgd.learning.vision import torchvision

SMALL = 64
"""Largest ``image_size`` that is treated as on CIFAR; decoded images of this size are cached."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, of each channel scaled to [0, 1]."""

_TEST_PART = 224 / 256
"""The middle of the image that is tested on, as on ImageNet: 256 pixels cropped to 224."""

_CACHE_LIMIT = 2**30

Reader = Callable[[NDArray[np.int64], NDArray[np.uint8]], None]


@dataclass(frozen=True)
class Listing:
    """The image files of a split and the number of each one's class."""

    paths: list[str]
    targets: NDArray[np.int64]
    classes: tuple[str, ...]


Listings = tuple[Listing, Listing]
"""Of the training and of the test images."""

_told: dict[tuple[Path, Path], Listings] = {}


def list_folders(settings: DataSettings, path: Path) -> Listings:
    """The training and the test images, in an order that is the same on every machine.

    Raises:
        DataError: A folder is missing, empty, or the two do not have the same classes.
    """
    train_folder, test_folder = find_folders(settings, path)
    told = _told.get((train_folder, test_folder))
    if told is not None:
        return told
    train, test = _list(train_folder), _list(test_folder)
    if train.classes != test.classes:
        apart = sorted(set(train.classes) ^ set(test.classes))
        raise DataError(
            f"imagefolder: {train_folder} and {test_folder} must hold folders of the same names, "
            f"one a class; only one of them has {', '.join(apart[:5])}"
            + (f" and {len(apart) - 5} more" if len(apart) > 5 else "")
        )
    return train, test


def find_folders(settings: DataSettings, path: Path) -> tuple[Path, Path]:
    """Where the training and the test images are, without a look inside.

    Raises:
        DataError: One of them is missing.
    """
    train_folder = path / settings.train_split
    _need(train_folder, "training images", "data.train_split")
    return train_folder, _test_folder(settings, path)


def tell_folders(settings: DataSettings, path: Path, listings: Listings) -> None:
    """What ``list_folders`` is to say in this process from now on, without walking the folders.

    Raises:
        DataError: One of them is missing here.
    """
    _told[find_folders(settings, path)] = listings


def folder_facts(settings: DataSettings, path: Path) -> Facts:
    """Count the files."""
    train, test = list_folders(settings, path)
    return Facts(
        num_train=len(train.paths),
        num_test=len(test.paths),
        num_classes=len(train.classes),
        input_shape=(3, settings.image_size, settings.image_size),
        resident_bytes=sum(
            sum(map(len, split.paths)) + _cache_bytes(settings, len(split.paths))
            for split in (train, test)
        ),
    )


def load_folder(settings: DataSettings, path: Path, augment: bool, device: torch.device) -> Dataset:
    """List the files; images are read when they are asked for."""
    train, test = list_folders(settings, path)
    executor = ThreadPoolExecutor(settings.loaders, "decode") if settings.loaders > 1 else None
    return Dataset(
        name="imagefolder",
        train=FolderSplit(settings, train, augment, executor, device),
        test=FolderSplit(settings, test, False, executor, device),
        num_classes=len(train.classes),
        input_shape=(3, settings.image_size, settings.image_size),
        class_names=train.classes,
    )


class FolderSplit:
    """Images read from files, or from memory the second time if they are small.

    Args:
        settings: Size, threads, cache.
        listing: The files.
        augment: Crop and flip at random where a generator is given.
        executor: Threads to decode on; None for the caller's own.
        device: Where batches go; bytes travel there, floats are made there.
    """

    def __init__(
        self,
        settings: DataSettings,
        listing: Listing,
        augment: bool,
        executor: Executor | None,
        device: torch.device,
    ) -> None:
        self._size = settings.image_size
        self._paths = listing.paths
        self._targets = torch.from_numpy(listing.targets)
        self.augments = augment
        self._executor = executor
        self._threads = settings.loaders
        self._device = device
        self._normalise = Normalise(_MEAN, _STD, 255, device)
        small = self._size <= SMALL
        self._whole = centre_crop(1.0 if small else _TEST_PART)
        self._jitter = Jitter(padding=4, flip=True) if small else None
        self._cache: Cache | None = None
        if _cache_bytes(settings, len(listing.paths)):
            self._cache = Cache(len(listing.paths), self._size)

    def __len__(self) -> int:
        return len(self._paths)

    def batch(
        self, indices: NDArray[np.int64], rng: np.random.Generator | None
    ) -> tuple[Tensor, Tensor]:
        augment = self.augments and rng is not None
        shape = (len(indices), self._size, self._size, 3)
        pinned = self._device.type == "cuda"
        pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        if augment and rng is not None and self._jitter is None:
            self._read(indices, list(random_crops(len(indices), rng)), pixels.numpy())
        elif self._cache:
            self._cache.fetch(indices, pixels.numpy(), self._read_whole)
        else:
            self._read_whole(indices, pixels.numpy())
        images = pixels.to(self._device, non_blocking=True).permute(0, 3, 1, 2)
        if augment and rng is not None and self._jitter:
            images = self._jitter(images, rng)
        targets = self._targets[torch.from_numpy(indices)]
        return self._normalise(images), targets.to(self._device)

    def _read_whole(self, indices: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        self._read(indices, [self._whole] * len(indices), out)

    def _read(self, indices: NDArray[np.int64], crops: list[Crop], out: NDArray[np.uint8]) -> None:
        paths = [self._paths[i] for i in indices]
        read_images(paths, crops, out, self._executor, self._threads)


class Cache:
    """Decoded images of one split, filled as they are first asked for."""

    def __init__(self, count: int, size: int) -> None:
        # The system hands out this memory page by page as it is written to.
        self._pixels = np.empty((count, size, size, 3), np.uint8)
        self._known = np.zeros(count, bool)

    def fetch(self, indices: NDArray[np.int64], out: NDArray[np.uint8], read: Reader) -> None:
        """Put the images into ``out``, those that are not known yet by ``read(indices, out)``."""
        missing = indices[~self._known[indices]]
        if len(missing):
            fresh = np.empty((len(missing), *out.shape[1:]), np.uint8)
            read(missing, fresh)
            # Two threads may do this for one image: both write the same bytes.
            self._pixels[missing] = fresh
            self._known[missing] = True
        np.take(self._pixels, indices, axis=0, out=out)


def _test_folder(settings: DataSettings, path: Path) -> Path:
    if settings.test_split is not None:
        folder = path / settings.test_split
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


def _list(folder: Path) -> Listing:
    datasets = torchvision().datasets
    try:
        found = datasets.ImageFolder(str(folder))
    except OSError as error:
        raise DataError(
            f"imagefolder: {folder} must hold a folder of images for each class: {error}"
        ) from error
    return Listing(
        paths=[path for path, _ in found.samples],
        targets=np.array(found.targets, dtype=np.int64),
        classes=tuple(found.classes),
    )


def _cache_bytes(settings: DataSettings, count: int) -> int:
    """Size of a split's cache, 0 for none."""
    size = count * settings.image_size**2 * 3
    if settings.cache == "auto":
        return size if settings.image_size <= SMALL and size <= _CACHE_LIMIT else 0
    return size if settings.cache == "on" else 0
