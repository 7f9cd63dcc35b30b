"""Memory that earlier runs of this process have left.

The parts of a run call each other, so they refer to each other in circles, and with them to its
data and to every worker's snapshot. Python frees circles when many objects have been made, however
long they are: a study of a hundred runs in one process would hold gigabytes that nobody wants.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path

import torch

GROWN_BYTES = 256 << 20
"""What a process may have grown by before it is worth a tenth of a second to look for circles."""

_STATM = Path("/proc/self/statm")

_least_bytes: int | None = None
"""Fewest bytes that a run of this process has begun with, of those since the last look."""


def let_go() -> bool:
    """Free what earlier runs have left, if this process has grown by much since.

    To be called before a run loads its data.

    Returns:
        Whether it was looked for.
    """
    global _least_bytes
    held = held_bytes()
    if _least_bytes is None or held <= _least_bytes + GROWN_BYTES:
        _least_bytes = held if _least_bytes is None else min(held, _least_bytes)
        return False
    gc.collect()
    _least_bytes = held_bytes()
    return True


def held_bytes() -> int:
    """Return the memory that this process holds, on its GPUs, too; 0 where nothing tells."""
    try:
        resident = int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # another system than Linux
        resident = 0
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        resident += sum(map(torch.cuda.memory_allocated, range(torch.cuda.device_count())))
    return resident
