"""Augmentation of whole batches, with a ticket's own randomness."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad


def shifted(images: Tensor, rng: np.random.Generator, margin: int) -> Tensor:
    """Crop each image at random from itself with ``margin`` zero pixels around it.

    Args:
        images: (n, channels, height, width).
        rng: Two draws an image.
        margin: Largest shift in pixels.
    """
    count, _, height, width = images.shape
    offsets = torch.from_numpy(rng.integers(0, 2 * margin + 1, (2, count))).to(images.device)
    padded = pad(images, (margin,) * 4)
    rows = offsets[0][:, None] + torch.arange(height, device=images.device)
    columns = offsets[1][:, None] + torch.arange(width, device=images.device)
    picked = torch.arange(count, device=images.device)[:, None, None]
    # Indexing with the channels left out in the middle puts them last.
    return padded[picked, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def flipped(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Mirror about half of the images, left to right."""
    mirror = torch.from_numpy(rng.random(len(images)) < 0.5).to(images.device)
    return torch.where(mirror[:, None, None, None], images.flip(3), images)


def crop_and_flip(images: Tensor, rng: np.random.Generator) -> Tensor:
    """What everybody does to CIFAR: crops with a margin of four pixels, and mirror images."""
    return flipped(shifted(images, rng, 4), rng)


def nudge(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Shifts by up to one pixel, for 8x8 digits, whose mirror images are no digits."""
    return shifted(images, rng, 1)
