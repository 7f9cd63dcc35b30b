"""Gradients that wait for company: the rule steps along their mean."""

from __future__ import annotations

import torch
from torch import Tensor


class HeldGradients:
    """A running sum of pushed vectors, each weighted by its samples.

    Args:
        size: Elements of a pushed vector.
        device: Where it lives. Nothing is allocated before the first vector is added.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self._size = size
        self._device = device
        self._sum: Tensor | None = None
        self._samples = 0
        self.count = 0

    def add(self, vector: Tensor, samples: int) -> None:
        """Take in one more, shape (size,)."""
        if self._sum is None:
            self._sum = torch.zeros(self._size, device=self._device)
        self._sum.add_(vector, alpha=samples)
        self._samples += samples
        self.count += 1

    def take(self) -> Tensor:
        """The mean over all samples of what was held, shape (size,); nothing is held any more."""
        if self._sum is None or self.count == 0:
            raise ValueError("no gradient is held")
        mean = self._sum / self._samples
        self._sum.zero_()
        self._samples = self.count = 0
        return mean
