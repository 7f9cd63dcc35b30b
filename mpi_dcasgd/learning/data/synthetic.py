"""Samples made up from a seed: cheap at any size, and something to learn in them.

A class is a random pattern of unit variance; a sample is its class's pattern plus noise. Patterns
are made of at most 8 patches along each axis, so that they survive a network's pooling. Noise is
read from one long random sequence at a place drawn for each sample: to make an ImageNet-sized
batch then costs little more than to copy it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpi_dcasgd.learning.data.dataset import Dataset, Facts, ResidentSplit
from mpi_dcasgd.learning.settings import DataSettings

_PATCHES = 8
_BANK = 2**20
"""Least number of places where a sample's noise may begin."""


def synthetic_facts(settings: DataSettings) -> Facts:
    """Sizes, as the settings have them."""
    size = math.prod(settings.shape)
    return Facts(
        num_train=settings.num_train,
        num_test=settings.num_test,
        num_classes=settings.num_classes,
        input_shape=settings.shape,
        resident_bytes=4 * (_BANK + size * (1 + settings.num_classes))
        + 16 * (settings.num_train + settings.num_test),
    )


def load_synthetic(settings: DataSettings, seed: int, device: torch.device) -> Dataset:
    """The data set that follows from the settings and the seed."""
    shape = settings.shape
    rng = np.random.default_rng([seed, 0])
    patterns = torch.from_numpy(_patterns(rng, settings.num_classes, shape)).to(device)
    bank = rng.standard_normal(_BANK + math.prod(shape), dtype=np.float32)
    noise = torch.from_numpy(bank).mul_(settings.noise).to(device)
    return Dataset(
        name="synthetic",
        train=SyntheticSplit(patterns, noise, settings.num_train, [seed, 1]),
        test=SyntheticSplit(patterns, noise, settings.num_test, [seed, 2]),
        num_classes=settings.num_classes,
        input_shape=shape,
        class_names=tuple(f"class {i}" for i in range(settings.num_classes)),
    )


class SyntheticSplit(ResidentSplit):
    """Samples that are made when asked for.

    Args:
        patterns: One for each class, (num_classes, *shape).
        noise: (N,) with N > the size of a sample.
        num_samples: Its length.
        seed: Of the labels and of the noise's places.
    """

    augments = False

    def __init__(self, patterns: Tensor, noise: Tensor, num_samples: int, seed: list[int]) -> None:
        size = patterns[0].numel()
        rng = np.random.default_rng(seed)
        places = len(noise) - size
        self.device = patterns.device
        self._patterns = patterns
        # Row p of this view is the noise from place p on.
        self._noise = noise.as_strided((places, size), (1, 1))
        self._targets = torch.from_numpy(rng.integers(0, len(patterns), num_samples)).to(
            patterns.device
        )
        self._places = torch.from_numpy(rng.integers(0, places, num_samples)).to(patterns.device)

    def __len__(self) -> int:
        return len(self._targets)

    def recipe(
        self, indices: NDArray[np.int64], rng: np.random.Generator | None
    ) -> NDArray[np.int64]:
        return indices[None]

    def make(self, recipe: Tensor) -> tuple[Tensor, Tensor]:
        (chosen,) = recipe
        targets = self._targets[chosen]
        inputs = self._patterns[targets]
        inputs += self._noise[self._places[chosen]].view_as(inputs)
        return inputs, targets


def _patterns(
    rng: np.random.Generator, num_classes: int, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Standard normal patches; a first axis before two others is channels, never patched."""
    channels, space = (shape[:1], shape[1:]) if len(shape) == 3 else ((), shape)
    grid = tuple(min(length, _PATCHES) for length in space) if len(space) == 2 else space
    coarse = rng.standard_normal((num_classes, *channels, *grid), dtype=np.float32)
    for axis, (length, patches) in enumerate(zip(space, grid, strict=True), 1 + len(channels)):
        coarse = coarse.take(np.arange(length) * patches // length, axis=axis)
    return np.ascontiguousarray(coarse)
