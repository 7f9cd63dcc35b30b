"""Parts of a split, and the validation samples that are taken from the training samples.

Nothing here imports PyTorch or NumPy before it is used, so that jobs are checked without them.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.data.dataset import Dataset, Facts, ResidentSplit, Split, augments
from mpi_dcasgd.wording import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

_ORDER = 20_261_128
"""Seed of the permutation whose first samples are for validation: never the job's seed, so that
all seeds of a study share the samples."""


class Part:
    """Some samples of a split, numbered from 0; resident on the device if that split is.

    Args:
        split: Where they come from.
        indices: Their numbers there, in the order that they are to have here.
        augment: False to read them without augmentation, whatever generator is given.

    Attributes:
        split: The split that the samples come from.
        indices: Their places in it.

    Example:
        >>> split = TensorSplit(torch.eye(4), torch.arange(4), torch.device("cpu"))
        >>> Part(split, np.array([3, 1])).batch(np.array([0]), None)[1].tolist()
        [3]
    """

    # Drivers ask whether a split is a ResidentSplit, so that a part must be one or be none.
    def __new__(cls, split: Split, indices: NDArray[np.int64], *, augment: bool = True) -> Part:
        resident = isinstance(split, ResidentSplit) and cls is Part
        return object.__new__(ResidentPart if resident else cls)

    def __init__(self, split: Split, indices: NDArray[np.int64], *, augment: bool = True) -> None:
        self.split = split
        self.indices = indices
        self.augments = augment and augments(split)
        self.in_background = getattr(split, "in_background", True)

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator | None) -> Any:
        """Return a batch, as any ``Split`` does."""
        return self.split.batch(self.indices[indices], rng if self.augments else None)


class ResidentPart(Part, ResidentSplit):
    """A part of a resident split, which is resident itself."""

    split: ResidentSplit

    def __init__(
        self, split: ResidentSplit, indices: NDArray[np.int64], *, augment: bool = True
    ) -> None:
        super().__init__(split, indices, augment=augment)
        self.device = split.device

    def recipe(
        self, indices: NDArray[np.int64], rng: np.random.Generator | None
    ) -> NDArray[np.int64]:
        return self.split.recipe(self.indices[indices], rng if self.augments else None)

    def make(self, recipe: Tensor) -> Any:
        return self.split.make(recipe)


def validation_size(num_train: int, fraction: float) -> int:
    """Return how many of the training samples are for validation.

    Raises:
        ConfigError: None would be, or all; keys relative to ``data``.

    Example:
        >>> validation_size(1437, 0.1)
        144
    """
    size = round(fraction * num_train)
    if fraction and not 0 < size < num_train:
        left = "validate with" if size == 0 else "train on"
        samples = counted(num_train, "training sample")
        raise ConfigError(
            "data",
            [
                f"validation: got {fraction:g} of {samples}, which leaves none to {left}; choose "
                "another fraction, or 0 for no validation"
            ],
        )
    return size


def hold_out(dataset: Dataset, fraction: float) -> Dataset:
    """Take a fraction of the training samples for validation, chosen by a fixed permutation.

    Raises:
        ConfigError: As ``validation_size``.
    """
    train, validation = set_apart(dataset.train, fraction)
    return dataclasses.replace(dataset, train=train, validation=validation)


def set_apart(train: Split, fraction: float) -> tuple[Split, Split]:
    """Divide training samples into those that are trained on and those for validation.

    Raises:
        ConfigError: As ``validation_size``.
    """
    import numpy as np

    total = len(train)
    size = validation_size(total, fraction)
    order = np.random.Generator(np.random.PCG64(_ORDER)).permutation(total)
    rest = Part(train, np.sort(order[size:]))
    return rest, Part(train, np.sort(order[:size]), augment=False)


def facts_with_validation(facts: Facts, fraction: float) -> Facts:
    """Return the sizes of a data set of which ``hold_out`` takes a fraction.

    Raises:
        ConfigError: As ``validation_size``.
    """
    size = validation_size(facts.num_train, fraction)
    return dataclasses.replace(facts, num_train=facts.num_train - size, num_validation=size)
