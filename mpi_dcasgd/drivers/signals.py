"""Stopping a run on a signal, and leaving a world in which others may have died.

A signal only sets a flag, which drivers read at safe points.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopFlag:
    """Flag that asks a run to stop at its next safe point; set by a signal, or by hand.

    Attributes:
        signum: The signal that set it, if one did.
    """

    def __init__(self) -> None:
        self._set = False
        self.signum: int | None = None

    def __bool__(self) -> bool:
        return self._set

    def set(self, signum: int | None = None) -> None:
        """Ask for a stop at the next safe point."""
        self._set = True
        self.signum = self.signum or signum

    def listen(self, signums: Iterable[int] = SIGNALS) -> None:
        """Let these signals set the flag, instead of what they did before."""
        for signum in signums:
            signal.signal(signum, self._on_signal)

    @contextmanager
    def listening(self, signums: Iterable[int] = SIGNALS) -> Iterator[None]:
        """Let these signals set the flag until the block is left, and then do what they did before.

        Outside of the main thread, where Python allows no handlers, this does nothing; nor does it
        touch a handler that was not installed from Python, which could not be given back.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {signum: signal.getsignal(signum) for signum in signums}
        before = {signum: handler for signum, handler in before.items() if handler is not None}
        self.listen(before)
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.set(signum)


def outlives_deaths(env: Mapping[str, str] = os.environ) -> bool:
    """Whether this world was started so that it survives the death of a rank.

    ``mpirun --with-ft ulfm`` says so to Open MPI's ranks in this variable; nobody else does.
    """
    return env.get("OMPI_MCA_mpi_ft_enable") == "1"


def leave(status: int) -> NoReturn:
    """Exit without finalizing MPI, which may wait for ever for a rank that is no more.

    (Seen with Open MPI 5.0.11: of a few worlds that had lost a rank, one hung in MPI_Finalize.)
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
