"""Samples made up from a seed: cheap at any size, and something to learn in them.

A class is a random pattern of unit variance; a sample is its class's pattern plus noise. Patterns
are made of at most 8 patches along each axis, so that they survive a network's pooling. Noise is
read from one long random sequence at a place drawn for each sample: to make an ImageNet-sized
batch then costs little more than to copy it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.data.dataset import Dataset, Facts, ResidentSplit
from mpi_dcasgd.learning.data.source import Augment, DataSource
from mpi_dcasgd.learning.settings import Count

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

_PATCHES = 8
_BANK = 2**20
"""Least number of places where a sample's noise may begin."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Synthetic(DataSource):
    """Samples made up from the seed, of any size and number, with something to learn in them."""

    name: Literal["synthetic"] = "synthetic"
    augment: Annotated[
        Augment, Field(description="random changes of training samples; these have none")
    ] = "auto"
    num_train: Annotated[Count, Field(description="training samples")] = 4096
    num_test: Annotated[Count, Field(description="test samples")] = 1024
    shape: Annotated[
        tuple[Count, ...], Field(strict=False, min_length=1, description="shape of a sample")
    ] = (1, 8, 8)
    num_classes: Annotated[int, Field(ge=2, description="classes")] = 10
    noise: Annotated[
        float,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="standard deviation of the noise; that of the classes is 1",
        ),
    ] = 2.0

    def check(self) -> list[str]:
        if self.augment == "standard":
            return ["augment: synthetic samples have none; set none or auto"]
        return []

    def known(self) -> Facts:
        size = math.prod(self.shape)
        return Facts(
            num_train=self.num_train,
            num_test=self.num_test,
            num_classes=self.num_classes,
            input_shape=self.shape,
            resident_bytes=4 * (_BANK + size * (1 + self.num_classes))
            + 16 * (self.num_train + self.num_test),
        )

    def load(self, seed: int, device: torch.device) -> Dataset:
        import numpy as np
        import torch

        rng = np.random.default_rng([seed, 0])
        patterns = torch.from_numpy(_patterns(rng, self.num_classes, self.shape)).to(device)
        bank = rng.standard_normal(_BANK + math.prod(self.shape), dtype=np.float32)
        noise = torch.from_numpy(bank).mul_(self.noise).to(device)
        return Dataset(
            name="synthetic",
            train=SyntheticSplit(patterns, noise, self.num_train, [seed, 1]),
            test=SyntheticSplit(patterns, noise, self.num_test, [seed, 2]),
            num_classes=self.num_classes,
            input_shape=self.shape,
            class_names=tuple(f"class {i}" for i in range(self.num_classes)),
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
        import numpy as np
        import torch

        size = patterns[0].numel()
        rng = np.random.default_rng(seed)
        places = len(noise) - size
        self.device = patterns.device
        self._patterns = patterns
        # Row p of this view is the noise from place p on.
        self._noise = noise.as_strided((places, size), (1, 1))
        self.targets = torch.from_numpy(rng.integers(0, len(patterns), num_samples)).to(
            patterns.device
        )
        self._places = torch.from_numpy(rng.integers(0, places, num_samples)).to(patterns.device)

    def __len__(self) -> int:
        return len(self.targets)

    def recipe(
        self, indices: NDArray[np.int64], rng: np.random.Generator | None
    ) -> NDArray[np.int64]:
        return indices[None]

    def make(self, recipe: Tensor) -> tuple[Tensor, Tensor]:
        (chosen,) = recipe
        targets = self.targets[chosen]
        inputs = self._patterns[targets]
        inputs += self._noise[self._places[chosen]].view_as(inputs)
        return inputs, targets


def _patterns(
    rng: np.random.Generator, num_classes: int, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Standard normal patches; a first axis before two others is channels, never patched."""
    import numpy as np

    channels, space = (shape[:1], shape[1:]) if len(shape) == 3 else ((), shape)
    grid = tuple(min(length, _PATCHES) for length in space) if len(space) == 2 else space
    coarse = rng.standard_normal((num_classes, *channels, *grid), dtype=np.float32)
    for axis, (length, patches) in enumerate(zip(space, grid, strict=True), 1 + len(channels)):
        coarse = coarse.take(np.arange(length) * patches // length, axis=axis)
    return np.ascontiguousarray(coarse)
