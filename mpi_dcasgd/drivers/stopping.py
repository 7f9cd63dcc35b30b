"""Being asked to stop: a signal only sets a flag, which drivers read at safe points."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopFlag:
    """Set by a signal, or by hand.

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

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.set(signum)
