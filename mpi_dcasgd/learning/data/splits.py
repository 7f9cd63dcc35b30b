"""What a data set is to the rest: two splits that serve batches by sample number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Indices = NDArray[np.int64]
Augment = Callable[[Tensor, np.random.Generator], Tensor]


class Split(Protocol):
    """Samples by number, 0 .. len - 1."""

    def __len__(self) -> int: ...

    def batch(self, indices: Indices, rng: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        """Inputs (n, *shape) float32 and targets (n,) int64.

        Args:
            indices: Sample numbers, shape (n,).
            rng: Where augmentation draws from; None for no augmentation.
        """


@dataclass(frozen=True)
class Dataset:
    """A training and a test split."""

    name: str
    train: Split
    test: Split
    num_classes: int
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]


class TensorSplit:
    """A split that is in memory as a whole.

    Args:
        inputs: (n, *shape): float32, ready to use, or uint8 images.
        targets: (n,) int64.
        augment: What to do to training batches, if anything.
        normalize: (mean, std) a channel, applied to uint8 images scaled to [0, 1].
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        augment: Augment | None = None,
        normalize: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self._inputs = inputs
        self._targets = targets
        self._augment = augment
        self._normalize = normalize

    def __len__(self) -> int:
        return len(self._targets)

    def batch(self, indices: Indices, rng: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        chosen = torch.from_numpy(indices).to(self._targets.device)
        inputs = self._inputs[chosen]
        if self._normalize is not None:
            mean, std = self._normalize
            inputs = (inputs.float() / 255 - mean[:, None, None]) / std[:, None, None]
        if rng is not None and self._augment is not None:
            inputs = self._augment(inputs, rng)
        return inputs, self._targets[chosen]
