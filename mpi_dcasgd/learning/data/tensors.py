"""A split of samples held as tensors, for data sets that fit into memory."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpi_dcasgd.learning.data.dataset import ResidentSplit


class TensorSplit(ResidentSplit):
    """Samples held on the device as they are given to the model, without augmentation.

    Args:
        inputs: (n, *shape), made float32.
        targets: (n,), made int64.
        device: Where to hold them.

    Attributes:
        targets: All of them.

    Example:
        >>> split = TensorSplit(torch.eye(3), torch.arange(3), torch.device("cpu"))
        >>> split.batch(np.array([2, 0]), None)[1].tolist()
        [2, 0]
    """

    augments = False

    def __init__(self, inputs: Tensor, targets: Tensor, device: torch.device) -> None:
        if len(inputs) != len(targets):
            raise ValueError(f"{len(inputs)} inputs, but {len(targets)} targets")
        self.device = device
        self._inputs = inputs.to(device, torch.float32)
        self.targets = targets.to(device, torch.int64)

    def __len__(self) -> int:
        return len(self.targets)

    def recipe(
        self, indices: NDArray[np.int64], rng: np.random.Generator | None
    ) -> NDArray[np.int64]:
        return indices[None]

    def make(self, recipe: Tensor) -> tuple[Tensor, Tensor]:
        (chosen,) = recipe
        return self._inputs[chosen], self.targets[chosen]
