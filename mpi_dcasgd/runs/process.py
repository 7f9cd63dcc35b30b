"""State of the process that a run changes, given back when it ends, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_as_it_was() -> Iterator[None]:
    """Give PyTorch's threads, cuDNN flags and default random generators back at the end.

    Example:
        >>> with torch_as_it_was():
        ...     _ = torch.manual_seed(1)
    """
    cudnn = torch.backends.cudnn
    threads, flags = torch.get_num_threads(), (cudnn.deterministic, cudnn.benchmark)
    generator = torch.get_rng_state()
    # Where CUDA is not in use yet there is nothing of the caller's to keep.
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    on_gpus = torch.cuda.get_rng_state_all() if in_use else []
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cudnn.deterministic, cudnn.benchmark = flags
        torch.set_rng_state(generator)
        if on_gpus:
            torch.cuda.set_rng_state_all(on_gpus)
