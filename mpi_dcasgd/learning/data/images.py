"""Batches of small images: crops and flips for a whole batch at once, and a split in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from mpi_dcasgd.learning.data.dataset import ResidentSplit


@dataclass(frozen=True)
class Jitter:
    """Random crop of the image padded with black, and random flip from left to right.

    With ``padding=4, flip=True`` it is the augmentation of CIFAR in He et al. 2016, section 4.2.
    """

    padding: int
    flip: bool

    def draw(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw the changes of ``n`` images: rows top, left and flipped, shape (3, n)."""
        # Drawn in this order for the whole batch, and always all of it.
        corner = rng.integers(0, 2 * self.padding + 1, (2, n))
        return np.vstack([corner, rng.random(n) < 0.5])

    def __call__(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Crop and flip each of ``images`` (n, C, H, W), any dtype, for itself."""
        drawn = torch.from_numpy(self.draw(len(images), rng))
        return self.apply(images, drawn.to(images.device))

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Crop and flip ``images`` as was drawn for them, shape (3, n), on their device."""
        n, _, height, width = images.shape
        top, left, flipped = drawn
        padded = pad(images, (self.padding,) * 4)
        # A view of all (2 * padding + 1) ** 2 crops of each image; one of each is copied.
        crops = padded.unfold(2, height, 1).unfold(3, width, 1)
        chosen = crops[torch.arange(n, device=images.device), :, top, left]
        if not self.flip:
            return chosen
        return torch.where(flipped.view(n, 1, 1, 1) != 0, chosen.flip(3), chosen)


class Normalise:
    """Turn integer pixels 0 .. ``top`` into floats of about zero mean and unit variance.

    Args:
        mean, std: Of each channel, of pixels scaled to [0, 1].
        top: The integer that stands for white.
        device: Where the images will be.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], top: int, device: torch.device
    ) -> None:
        shape = (1, len(mean), 1, 1)
        scale = torch.tensor(std, dtype=torch.float32).view(shape)
        self._factor = (1 / (top * scale)).to(device)
        self._offset = (-torch.tensor(mean, dtype=torch.float32).view(shape) / scale).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """Floats (n, C, H, W), contiguous, of integer images of any memory layout."""
        floats = images.to(torch.float32, memory_format=torch.contiguous_format)
        return floats.mul_(self._factor).add_(self._offset)


class ImageSplit(ResidentSplit):
    """Images held as bytes on the device, where they are augmented and normalised too.

    Args:
        images: (n, C, H, W) uint8.
        targets: (n,).
        normalise: From bytes to floats.
        jitter: Augmentation, or None.
        device: Where to hold them.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        targets: NDArray[np.int64],
        normalise: Normalise,
        jitter: Jitter | None,
        device: torch.device,
    ) -> None:
        self.images = torch.from_numpy(np.ascontiguousarray(images)).to(device)
        self.targets = torch.from_numpy(np.ascontiguousarray(targets, dtype=np.int64)).to(device)
        self._normalise = normalise
        self._jitter = jitter
        self.augments = jitter is not None
        self.device = device

    def __len__(self) -> int:
        return len(self.targets)

    def recipe(
        self, indices: NDArray[np.int64], rng: np.random.Generator | None
    ) -> NDArray[np.int64]:
        if self._jitter is None or rng is None:
            return indices[None]
        return np.vstack([indices, self._jitter.draw(len(indices), rng)])

    def make(self, recipe: Tensor) -> tuple[Tensor, Tensor]:
        images, targets = self.images[recipe[0]], self.targets[recipe[0]]
        if self._jitter is not None and len(recipe) > 1:
            images = self._jitter.apply(images, recipe[1:])
        return self._normalise(images), targets
