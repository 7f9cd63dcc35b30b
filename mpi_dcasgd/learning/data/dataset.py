"""Interface of loaded data: splits that serve batches by sample number.

Nothing here imports PyTorch, so that jobs are checked without it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor


class Split(Protocol):
    """The training or the test samples, numbered from 0."""

    def __len__(self) -> int: ...

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator | None) -> Any:
        """The samples of ``indices``; equal arguments give equal bits, on any thread.

        Args:
            indices: Sample numbers, shape (n,).
            rng: Draws the augmentation; None for none. A split without augmentation ignores it,
                and may say so (see ``augments``).

        Returns:
            A nest of tensors, as the task takes it. For classification inputs (n, *shape) float32
            and targets (n,) int64.

        Raises:
            DataError: A sample cannot be read.
        """
        ...


class ResidentSplit(ABC):
    """A split whose samples lie on the device, where a few numbers make a batch of them.

    All that is drawn or looked up is in the recipe, so that ``make`` can be recorded once as a
    graph of device operations.

    Attributes:
        device: Where the samples are.
    """

    device: torch.device

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def recipe(
        self, indices: NDArray[np.int64], rng: np.random.Generator | None
    ) -> NDArray[np.int64]:
        """Return the numbers that make the batch: shape (rows, n), as many rows for every batch."""

    @abstractmethod
    def make(self, recipe: Tensor) -> Any:
        """The same nest as of ``batch``, by device operations that depend on no value.

        Args:
            recipe: (rows, n) int64 on the split's device.
        """

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator | None) -> Any:
        """Return a batch, as any ``Split`` does."""
        import torch

        return self.make(torch.from_numpy(self.recipe(indices, rng)).to(self.device))


def augments(split: Split) -> bool:
    """Return whether batches depend on the generator: not if ``split.augments`` is false."""
    return bool(getattr(split, "augments", True))


@dataclass(frozen=True)
class Dataset:
    """A data set, loaded or ready to be read.

    Attributes:
        input_shape: Of one sample, images as (channels, height, width).
        class_names: One for each class, in the order of the targets.
        validation: Samples that choose the best weights and are not trained on, if any.
        left_out: What lies beside the data and is none of them, in words, to be told at the start.
    """

    name: str
    train: Split
    test: Split
    num_classes: int
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    validation: Split | None = None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """Sizes of a data set, for checks and plans made without loading it.

    Attributes:
        num_train: Training samples, without those for validation.
        num_test: Test samples.
        num_classes: Classes.
        input_shape: Of one sample, images as (channels, height, width).
        resident_bytes: Memory that its samples take up in every process that loads it; for a
            cache that fills during training, when it is full.
        num_validation: Samples that choose the best weights.
    """

    num_train: int
    num_test: int
    num_classes: int
    input_shape: tuple[int, ...]
    resident_bytes: int
    num_validation: int = 0

    @classmethod
    def of(cls, dataset: Dataset) -> Facts:
        """Tell the sizes of loaded data, whose samples are taken for float32 in memory."""
        train, test = len(dataset.train), len(dataset.test)
        validation = 0 if dataset.validation is None else len(dataset.validation)
        return cls(
            num_train=train,
            num_test=test,
            num_classes=dataset.num_classes,
            input_shape=dataset.input_shape,
            resident_bytes=(train + test + validation) * (4 * math.prod(dataset.input_shape) + 8),
            num_validation=validation,
        )
