"""A split of image files: decoded when asked for, cached where that is allowed.

Images for the model of more than 64 pixels are trained on as on ImageNet (random crops resized,
middle crop for testing), smaller ones as on CIFAR.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpi_dcasgd.learning.data.decode import Crop, centre_crop, random_crops, read_images
from mpi_dcasgd.learning.data.folder import SMALL
from mpi_dcasgd.learning.data.images import Jitter, Normalise
from mpi_dcasgd.learning.data.listing import Listing

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, of each channel scaled to [0, 1]."""

_TEST_PART = 224 / 256
"""The middle of the image that is tested on, as on ImageNet: 256 pixels cropped to 224."""

Reader = Callable[[NDArray[np.int64], NDArray[np.uint8]], None]


class FolderSplit:
    """Images read from files, or from memory the second time if they are small.

    Args:
        listing: The files.
        size: Height and width given to the model.
        augment: Crop and flip at random where a generator is given.
        cache: Keep decoded images in memory.
        threads: Parts that the images of a batch are decoded in.
        executor: Threads to decode on; None for the caller's own.
        device: Where batches go; bytes travel there, floats are made there.
    """

    def __init__(
        self,
        listing: Listing,
        size: int,
        *,
        augment: bool,
        cache: bool,
        threads: int,
        executor: Executor | None,
        device: torch.device,
    ) -> None:
        self._size = size
        self._listed = listing.fingerprint
        self._paths = listing.paths
        self._targets = torch.from_numpy(listing.targets)
        self.augments = augment
        self._executor = executor
        self._threads = threads
        self._device = device
        self._normalise = Normalise(_MEAN, _STD, 255, device)
        small = self._size <= SMALL
        self._whole = centre_crop(1.0 if small else _TEST_PART)
        self._jitter = Jitter(padding=4, flip=True) if small else None
        self._cache = Cache(len(listing.paths), self._size) if cache else None

    def __len__(self) -> int:
        return len(self._paths)

    def fingerprint(self) -> str:
        """Return a name for these files: their names and sizes, and the first and the last."""
        return self._listed

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
