"""Accumulation of gradients that are held for a common step along their mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mpi_dcasgd.pages import zeros
from mpi_dcasgd.server.state import saved


class GradientAccumulator:
    """Running sum of pushed vectors, each weighted by its samples.

    Samples are counted in units of the first vector's, so minibatches of equal size are added
    unscaled, and the sum of a few finite gradients stays finite.

    Args:
        size: Elements of a pushed vector.
        device: Device of the sum. Nothing is allocated before the first vector is added.
        dtype: Type of the sum.

    Attributes:
        count: Number of vectors held at present.
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
        """Add a vector, shape (size,), that is a mean over ``samples``."""
        if self.count == 0:
            self._unit = samples
        self._allocated().add_(vector, alpha=samples / self._unit)
        self._samples += samples
        self.count += 1

    def take(self) -> Tensor:
        """Return the mean over all samples held, shape (size,), and start again from none.

        Raises:
            ValueError: No gradient is held.
        """
        if self.count == 0:
            raise ValueError("no gradient is held")
        held = self._allocated()
        mean = held / (self._samples / self._unit)
        held.zero_()
        self._samples = self.count = 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        """Return what is held; the sum is a copy on the CPU, or None if nothing is held."""
        held = self._sum if self.count else None
        return {
            "sum": None if held is None else saved(held),
            "samples": self._samples,
            "unit": self._unit,
            "count": self.count,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        if state["count"]:
            self._allocated().copy_(state["sum"])
        elif self._sum is not None:
            self._sum.zero_()
        self._samples = state["samples"]
        self._unit = state.get("unit", 1)  # missing in the first checkpoints
        self.count = state["count"]

    def _allocated(self) -> Tensor:
        if self._sum is None:
            self._sum = zeros(self._size, self._dtype, self._device)
        return self._sum
