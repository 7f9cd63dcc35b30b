"""Memory for vectors: huge pages for long ones, and the place within a page where each begins.

A vector of 100 MB is 25,000 pages of 4 KiB or 49 of 2 MiB. Whoever copies or updates it looks up
each of them, and an MPI library that copies from one process to another pins each of them. Long
vectors on the CPU therefore lie in private anonymous maps for which huge pages have been asked
(``MADV_HUGEPAGE``), which is what systems with ``transparent_hugepage/enabled = madvise`` wait for.
Where that cannot be asked, they are ordinary memory, and nothing else is any different.
"""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

PAGE_BYTES = 4096
HUGE_BYTES = 2 << 20
"""Size of a huge page, and what long vectors are aligned to."""
LONG_BYTES = 4 << 20
"""Length from which a vector is long: at least one huge page lies within it wherever it begins."""

_CPU = torch.device("cpu")


def zeros(
    size: int, dtype: torch.dtype = torch.float32, device: torch.device = _CPU, begin: int = 0
) -> Tensor:
    """Return zeros in memory of their own, which is given back with the last tensor that uses it.

    Args:
        size: Elements.
        dtype: Their type.
        device: Off the CPU the memory is PyTorch's.
        begin: Place within a page of 4 KiB, in bytes, where a long vector begins.

    Returns:
        Shape (size,). Its storage holds nothing else, so that saving it writes nothing else.

    Example:
        >>> vector = zeros(2_000_000, begin=576)
        >>> vector.data_ptr() % PAGE_BYTES, int(vector.count_nonzero())
        (576, 0)
    """
    num_bytes = size * dtype.itemsize
    if device.type == "cpu" and num_bytes >= LONG_BYTES:
        mapped = _map(num_bytes + begin % PAGE_BYTES)
        if mapped is not None:
            memory, offset = mapped
            offset += begin % PAGE_BYTES
            return torch.frombuffer(memory, dtype=dtype, count=size, offset=offset)
    return torch.zeros(size, dtype=dtype, device=device)


def copy_of(vector: Tensor, device: torch.device | None = None) -> Tensor:
    """Return a copy in memory of its own.

    Args:
        vector: Of any shape.
        device: Where the copy lies; None for the vector's own.
    """
    where = vector.device if device is None else device
    return zeros(vector.numel(), vector.dtype, where).view(vector.shape).copy_(vector.detach())


def _map(num_bytes: int) -> tuple[mmap.mmap, int] | None:
    """Return a private map and where its first huge page begins; None where there is no such map.

    What lies beyond the last whole huge page is in ordinary pages, so that no memory is wasted.
    """
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None:
        return None
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        memory = mmap.mmap(-1, num_bytes + HUGE_BYTES, flags=flags)
        memory.madvise(advice)
    except OSError:  # a kernel without huge pages, or no memory: PyTorch says so better
        return None
    address = torch.frombuffer(memory, dtype=torch.uint8, count=1).data_ptr()
    return memory, -address % HUGE_BYTES
