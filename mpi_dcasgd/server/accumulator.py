"""Gradients that wait for company: the rule steps along their mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class HeldGradients:
    """A running sum of pushed vectors, each weighted by its samples.

    Samples count in units of the first vector's: minibatches of one size are added as they are,
    and a sum of few finite gradients stays finite, too.

    Args:
        size: Elements of a pushed vector.
        device: Where it lives. Nothing is allocated before the first vector is added.
        dtype: What the sum is kept in.

    Attributes:
        count: Vectors held at present.
    """

    def __init__(self, size: int, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self._size = size
        self._device = device
        self._dtype = dtype
        self._sum: Tensor | None = None
        self._samples = 0
        self._unit = 1
        self.count = 0

    def add(self, vector: Tensor, samples: int) -> None:
        """Take in one more, shape (size,), the mean over ``samples``."""
        if self.count == 0:
            self._unit = samples
        self._allocated().add_(vector, alpha=samples / self._unit)
        self._samples += samples
        self.count += 1

    def take(self) -> Tensor:
        """The mean over all samples of what was held, shape (size,); nothing is held any more."""
        if self.count == 0:
            raise ValueError("no gradient is held")
        held = self._allocated()
        mean = held / (self._samples / self._unit)
        held.zero_()
        self._samples = self.count = 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        """What is held; the sum is None where nothing is, and no copy."""
        held = self._sum if self.count else None
        return {
            "sum": held,
            "samples": self._samples,
            "unit": self._unit,
            "count": self.count,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over the values that ``state_dict`` gave."""
        if saved["count"]:
            self._allocated().copy_(saved["sum"])
        elif self._sum is not None:
            self._sum.zero_()
        self._samples = saved["samples"]
        self._unit = saved.get("unit", 1)  # an earlier version's
        self.count = saved["count"]

    def _allocated(self) -> Tensor:
        if self._sum is None:
            self._sum = torch.zeros(self._size, device=self._device, dtype=self._dtype)
        return self._sum
