"""State of the process that a run changes, given back when it ends, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.learning.generators import kept
from mpi_dcasgd.runs.result import Run


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


def run_of_one_process(path: Path, flag: StopFlag, *, own: bool) -> Run:
    """Return a run that this process has made alone and has just left.

    Args:
        path: Its folder.
        flag: What has stopped it, if anything has.
        own: Whether the flag is the call's own. A signal that set it was then meant for more than
            the run: a loop over runs is to end with it.

    Raises:
        KeyboardInterrupt: It was Ctrl-C; the run is saved.
    """
    if own:
        try:
            flag.hand_on()
        except KeyboardInterrupt as error:
            error.add_note(f"{path} is saved; the same call with this run_dir resumes it")
            raise
    return Run.after(path, flag.signum)
