"""A split of tensors of equal length, in any nest, held on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpi_dcasgd.learning.data.dataset import ResidentSplit
from mpi_dcasgd.learning.nest import map_tensors, tensors_of


class NestSplit(ResidentSplit):
    """Samples held on the device as they are given to the task, without augmentation.

    Args:
        nest: Tensors whose first dimension counts samples: alone, or in tuples and dictionaries.
        device: Where to hold them.

    Example:
        >>> split = NestSplit({"x": torch.eye(3), "y": torch.arange(3)}, torch.device("cpu"))
        >>> split.batch(np.array([2, 0]), None)["y"].tolist()
        [2, 0]
    """

    augments = False

    def __init__(self, nest: Any, device: torch.device) -> None:
        tensors = tensors_of(nest)
        lengths = {len(tensor) for tensor in tensors}
        if len(lengths) != 1:
            raise ValueError(f"tensors of lengths {sorted(lengths)}, but each holds all samples")
        self.device = device
        self.nest = map_tensors(lambda tensor: tensor.to(device), nest)
        self._length = lengths.pop()

    def __len__(self) -> int:
        return self._length

    def recipe(
        self, indices: NDArray[np.int64], rng: np.random.Generator | None
    ) -> NDArray[np.int64]:
        return indices[None]

    def make(self, recipe: Tensor) -> Any:
        (chosen,) = recipe
        return map_tensors(lambda tensor: tensor[chosen], self.nest)
