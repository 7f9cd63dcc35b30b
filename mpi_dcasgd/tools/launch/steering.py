"""Signals on their way to a world: what is passed on, and what that makes of its exit status."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir
from types import FrameType

from mpi_dcasgd.stop_signals import SIGNALS


class Steering:
    """Effect of signals on a world and on its exit status.

    Attributes:
        signum: The first signal, or None.
        told: File that tells ranks on this host which signal a SIGUSR1 stands for, or None.
    """

    def __init__(self) -> None:
        self.told: Path | None = None
        self._world: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []
        self._stops: list[int] = []
        self.signum: int | None = None

    @contextmanager
    def telling(self, mark: str) -> Iterator[None]:
        """Have a place for ``told``, where this host has one for such files, and clear it away.

        Args:
            mark: The world's own.
        """
        with suppress(OSError):
            self.told = Path(gettempdir(), f"mpi-dcasgd-asked-{mark}")
        try:
            yield
        finally:
            if self.told:
                with suppress(OSError):
                    self.told.unlink(missing_ok=True)

    def begin(self, world: subprocess.Popen[bytes]) -> None:
        """Pass on what came before the world was there, and from now on at once."""
        self._world = world
        while self._early:
            world.send_signal(self._early.pop(0))

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        """A handler: `world.run` says what for."""
        self.signum = self.signum or signum
        if signum not in (signal.SIGUSR1, signal.SIGUSR2):
            self._stops.append(signum)
            again = self.insisted
            what = "killing the ranks" if again else "the ranks stop when it is safe (again: now)"
            # Not print, which a handler may have interrupted.
            with suppress(OSError):  # nobody reads it any more
                os.write(2, f"\n{signal.Signals(signum).name}: {what}\n".encode())
            if self.told and self.signum == signum and not again:
                with suppress(OSError):  # the ranks then tell of the SIGUSR1
                    self.told.write_text(str(int(signum)))
            signum = signal.SIGTERM if again else signal.SIGUSR1
        if self._world:
            self._world.send_signal(signum)
        else:
            self._early.append(signum)

    @property
    def insisted(self) -> bool:
        """True if the ranks are to be killed: there was a second request to stop."""
        return len(self._stops) > 1

    def exit_status(self, status: int) -> int:
        """Shell's exit status; ``status`` is negative where a signal ended mpirun itself."""
        status = 128 - status if status < 0 else status
        # Ranks that had not come to listening yet were ended by the SIGUSR1 itself.
        if self._stops and (self.insisted or status == 128 + signal.SIGUSR1):
            return 128 + self._stops[0]
        return status


@contextmanager
def handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle the signals that end or steer a job, those excepted that the user ignores (nohup)."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread have handlers
        return
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    heard = [signum for signum in SIGNALS if before[signum] is not signal.SIG_IGN]
    outer = before[signal.SIGUSR1]

    def both(signum: int, frame: FrameType | None) -> None:
        handler(signum, frame)
        if callable(outer):  # a comparison's, which is not to start the next run
            outer(signum, frame)

    for signum in heard:
        signal.signal(signum, both if signum == signal.SIGUSR1 else handler)
    try:
        yield
    finally:
        for signum in heard:
            signal.signal(signum, before[signum])
