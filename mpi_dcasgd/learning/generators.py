"""The process's global generators: Python's ``random``, NumPy's and PyTorch's default ones."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def plant(seed: int) -> None:
    """Seed all of them.

    Args:
        seed: From 0 on.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def kept() -> Iterator[None]:
    """Give their states back at the end, however it comes.

    Example:
        >>> with kept():
        ...     plant(1)
    """
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    # Where CUDA is not in use yet there is nothing of the caller's to keep.
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    on_gpus = torch.cuda.get_rng_state_all() if in_use else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if on_gpus:
            torch.cuda.set_rng_state_all(on_gpus)
