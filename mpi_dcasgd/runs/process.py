"""State of the process that a run changes, given back when it ends, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mpi_dcasgd.learning.generators import kept


@contextmanager
def process_as_it_was() -> Iterator[None]:
    """Give PyTorch's threads, cuDNN flags and all default random generators back at the end.

    Example:
        >>> with process_as_it_was():
        ...     _ = torch.manual_seed(1)
    """
    cudnn = torch.backends.cudnn
    threads, flags = torch.get_num_threads(), (cudnn.deterministic, cudnn.benchmark)
    try:
        with kept():
            yield
    finally:
        torch.set_num_threads(threads)
        cudnn.deterministic, cudnn.benchmark = flags
