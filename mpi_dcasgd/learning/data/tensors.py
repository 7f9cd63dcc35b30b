"""A split of inputs and targets held as tensors, for data sets that fit into memory."""

from __future__ import annotations

import torch
from torch import Tensor

from mpi_dcasgd.learning.data.nests import NestSplit


class TensorSplit(NestSplit):
    """Samples held on the device as they are given to the model, without augmentation.

    Args:
        inputs: (n, *shape), made float32.
        targets: (n,), made int64.
        device: Where to hold them.

    Attributes:
        targets: All of them.

    Example:
        >>> import numpy
        >>> split = TensorSplit(torch.eye(3), torch.arange(3), torch.device("cpu"))
        >>> split.batch(numpy.array([2, 0]), None)[1].tolist()
        [2, 0]
    """

    def __init__(self, inputs: Tensor, targets: Tensor, device: torch.device) -> None:
        if len(inputs) != len(targets):
            raise ValueError(f"{len(inputs)} inputs, but {len(targets)} targets")
        super().__init__((inputs.to(torch.float32), targets.to(torch.int64)), device)
        self.targets: Tensor = self.nest[1]
