"""Alignment of vectors in memory.

Large allocations all begin at the same place within a page. A pass that walks several such
vectors at once then reads and writes addresses that agree in their low twelve bits, which
processors take for the same address until they have looked closer, and which compete for the same
sets of the cache. While the vectors fit into a cache this halves the speed of an update
(docs/performance.md), so vectors that are used together begin at different places.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mpi_dcasgd.pages import LONG_BYTES, PAGE_BYTES, zeros

LANE_BYTES = 9 * 64
"""From one lane to the next: whole cache lines, and seven lanes before they come round again."""


def lane_of(vector: Tensor, lane: int) -> int:
    """Return where in a page a vector ``lane`` places on from ``vector`` should begin, in bytes."""
    return (vector.data_ptr() + lane * LANE_BYTES) % PAGE_BYTES


def zeros_beside(vector: Tensor, lane: int) -> Tensor:
    """Zeros like ``vector``, ``lane`` places on from it within a page.

    Args:
        vector: Shape (P,).
        lane: From 1; vectors that are used in one pass have different lanes.
    """
    if vector.device.type != "cpu":
        return torch.zeros_like(vector)
    size = vector.element_size()
    if vector.numel() * size >= LONG_BYTES:
        return zeros(vector.numel(), vector.dtype, begin=lane_of(vector, lane))
    room = torch.zeros(vector.numel() + PAGE_BYTES // size, dtype=vector.dtype)
    skip = (lane_of(vector, lane) - room.data_ptr()) % PAGE_BYTES // size
    return room[skip : skip + vector.numel()]
