"""The model of a task that looks for a point: one vector of numbers."""

from __future__ import annotations

from torch import Tensor, nn


class Point(nn.Module):
    """A vector of parameters, which is all that there is to it.

    Args:
        start: Where training begins, shape (d,).

    Example:
        >>> import torch
        >>> Point(torch.zeros(3))().shape
        torch.Size([3])
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.x = nn.Parameter(start)

    def forward(self) -> Tensor:
        """Return the vector itself."""
        return self.x
