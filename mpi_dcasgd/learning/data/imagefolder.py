"""Images in a folder a class, as torchvision's ImageFolder (and ImageNet) has them."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mpi_dcasgd.errors import DataError
from mpi_dcasgd.learning.data.splits import Dataset, Indices
from mpi_dcasgd.learning.settings import DataSettings
from mpi_dcasgd.learning.vision import torchvision

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
TEST_FOLDERS = ("val", "test")
SMALL = 64
"""Up to this size images are cropped with a margin, as CIFAR's are, instead of zoomed into."""


class FolderSplit:
    """Images decoded when they are asked for, by a pool of threads (PIL lets others run).

    A sample's random numbers are drawn from the ticket's generator by its place in the batch, so
    they do not depend on which thread is how fast.

    Args:
        samples: (file, class) in a fixed order.
        size: Pixels of a side.
        augment: Random crops and flips where a generator is given.
        pool: Decodes.
    """

    def __init__(
        self, samples: list[tuple[str, int]], size: int, augment: bool, pool: ThreadPoolExecutor
    ) -> None:
        self._samples = samples
        self._size = size
        self._augment = augment
        self._pool = pool

    def __len__(self) -> int:
        return len(self._samples)

    def batch(self, indices: Indices, rng: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        draws: list[NDArray[np.float64] | None] = [None] * len(indices)
        if rng is not None and self._augment:
            draws = list(rng.random((len(indices), 6)))
        files = [self._samples[i][0] for i in indices]
        arrays = list(self._pool.map(self._decode, files, draws))
        images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
        mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
        inputs = (images.float() / 255 - mean) / std
        targets = torch.tensor([self._samples[i][1] for i in indices], dtype=torch.int64)
        return inputs, targets

    def _decode(self, file: str, draws: NDArray[np.float64] | None) -> NDArray[np.uint8]:
        try:
            with Image.open(file) as opened:
                image = opened.convert("RGB")
        except OSError as error:
            raise DataError(f"{file}: cannot be read as an image: {error}") from error
        size = self._size
        if draws is None:
            image = _resize_and_crop(image, size)
        elif size <= SMALL:
            image = _crop_with_margin(_resize_and_crop(image, size), draws)
        else:
            image = image.resize((size, size), Image.Resampling.BILINEAR, _random_box(image, draws))
        if draws is not None and draws[5] < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(image)


def load_imagefolder(settings: DataSettings, augment: bool) -> Dataset:
    """``train/<class>/*`` and ``val/<class>/*`` (or ``test``) under the job's ``data.path``.

    Raises:
        DataError: Folders are missing, empty, or hold different classes.
    """
    root = Path(settings.path or "")
    train = _list(root / "train")
    found = [name for name in TEST_FOLDERS if (root / name).is_dir()]
    if not found:
        raise DataError(f"data.path {root}: has no folder {' or '.join(TEST_FOLDERS)} for testing")
    test = _list(root / found[0])
    if train.classes != test.classes:
        raise DataError(
            f"data.path {root}: train and {found[0]} hold different classes: "
            f"{sorted(set(train.classes) ^ set(test.classes))}"
        )
    pool = ThreadPoolExecutor(settings.loaders, "decoder")
    size = settings.image_size
    return Dataset(
        name="imagefolder",
        train=FolderSplit(train.samples, size, augment, pool),
        test=FolderSplit(test.samples, size, False, pool),
        num_classes=len(train.classes),
        input_shape=(3, size, size),
        class_names=tuple(train.classes),
    )


def _list(folder: Path) -> Any:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; data.path needs train/<class>/<image> under it")
    try:
        return torchvision().datasets.ImageFolder(str(folder))
    except FileNotFoundError as error:
        raise DataError(f"{folder}: {error}") from error


def _resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """The middle of the image; large ones are scaled so that an eighth is cut off around it."""
    if image.size == (size, size):
        return image
    short = size if size <= SMALL else size * 8 // 7
    scale = short / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _crop_with_margin(image: Image.Image, draws: NDArray[np.float64]) -> Image.Image:
    left, top = (int(draw * 9) - 4 for draw in draws[:2])
    return image.crop((left, top, left + image.width, top + image.height))


def _random_box(
    image: Image.Image, draws: NDArray[np.float64]
) -> tuple[float, float, float, float]:
    """8 to 100 % of the area, aspect ratio 3/4 to 4/3 (Szegedy et al. 2015), within the image."""
    area = image.width * image.height * (0.08 + 0.92 * draws[2])
    ratio = math.exp((2 * draws[3] - 1) * math.log(4 / 3))
    width = min(image.width, math.sqrt(area * ratio))
    height = min(image.height, math.sqrt(area / ratio))
    left, top = draws[0] * (image.width - width), draws[1] * (image.height - height)
    return left, top, left + width, top + height
