"""Stopping a run on a signal, and leaving a world in which others may have died.

A signal only sets a flag, which drivers read at safe points.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from mpi_dcasgd.stop_signals import SIGNALS

ASKED_VARIABLE = "MPI_DCASGD_ASKED"
"""Names the file in which a launcher leaves the number of a signal that it passes on as SIGUSR1."""

_FOR_THE_PROCESS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

AGAIN_S = 1.0
"""Seconds after a signal from which another one is a second request: a launcher and a scheduler
may both pass on the first one."""


class StopFlag:
    """Flag that asks a run to stop at its next safe point; set by a signal, or by hand.

    A second signal does not wait for a safe point.

    Args:
        clock: Seconds, monotonic.

    Attributes:
        signum: The signal that set it, if one did.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._set = False
        self._clock = clock
        self._signalled_s: float | None = None
        self._before: dict[int, Any] = {}
        self.signum: int | None = None

    def __bool__(self) -> bool:
        return self._set

    def set(self, signum: int | None = None) -> None:
        """Ask for a stop at the next safe point."""
        self._set = True
        self.signum = self.signum or signum

    def listen(self, signums: Iterable[int] = SIGNALS, *, insist: bool = False) -> None:
        """Let these signals set the flag, instead of what they did before.

        A second one does what it did before, which ends the process as a rule. A hangup that is
        ignored (nohup) stays ignored.

        Args:
            signums: The signals.
            insist: Have the second one end the process even if its main thread is within a call
                that never returns, where Python handles no signals.
        """
        heard = [
            signum
            for signum in signums
            if signum != signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN
        ]
        for signum in heard:
            self._before[signum] = signal.signal(signum, self._on_signal)
        if insist:
            self._end_at_the_second(heard)

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

    def hand_on(self) -> None:
        """Have a signal that is for the process do what it does without us, after a run's end.

        A run that SIGINT, SIGTERM or SIGHUP has stopped is saved by then, and the process is to
        stop, too: KeyboardInterrupt, its end, or a handler of the caller's. The others are a
        scheduler's warnings, and the caller is told of them.

        Raises:
            KeyboardInterrupt: The signal was SIGINT, and nobody handles it otherwise.
        """
        if self.signum in _FOR_THE_PROCESS:
            signal.raise_signal(self.signum)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        now = self._clock()
        first = self._signalled_s is None or now - self._signalled_s < AGAIN_S
        self._signalled_s = now if self._signalled_s is None else self._signalled_s
        self.set(signum)
        if first:
            return
        before = self._before.get(signum)
        if callable(before):
            before(signum, frame)
        elif before is not signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)

    def _end_at_the_second(self, signums: Sequence[int]) -> None:
        """Set the flag, and end the process at the second signal, from a thread of its own."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

        def watch() -> None:
            first_s: float | None = None
            while received := os.read(reading, 1):
                (signum,) = received
                if signum not in signums or signal.getsignal(signum) != self._on_signal:
                    continue  # it is somebody else's by now
                now = self._clock()
                if first_s is None:
                    first_s = now
                    self.set(signum)
                elif now - first_s >= AGAIN_S:
                    os.write(2, f"{signal.Signals(signum).name} again: ending at once\n".encode())
                    os._exit(128 + signum)

        threading.Thread(target=watch, name="signals", daemon=True).start()


def first_signal(received: int, env: Mapping[str, str] = os.environ) -> int:
    """Return the signal that came first, where a launcher has passed it on as another.

    Args:
        received: What this process got.
        env: The environment; the launcher may be on another host, and then nothing is known.
    """
    path = env.get(ASKED_VARIABLE)
    if received != signal.SIGUSR1 or not path:
        return received
    try:
        told = Path(path).read_text(encoding="utf-8")
    except OSError:
        return received
    return int(told) if told.isdecimal() else received


def outlives_deaths(env: Mapping[str, str] = os.environ) -> bool:
    """Return whether this world was started so that it survives the death of a rank.

    ``mpirun --with-ft ulfm`` says so to Open MPI's ranks in this variable; nobody else does.
    """
    return env.get("OMPI_MCA_mpi_ft_enable") == "1"


def sleep_for_ever() -> NoReturn:
    """Wait for the end of the process by others."""
    while True:
        signal.pause()


def leave(status: int) -> NoReturn:
    """Exit without finalizing MPI, which may wait for ever for a rank that is no more.

    (Seen with Open MPI 5.0.11: of a few worlds that had lost a rank, one hung in MPI_Finalize.)
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
