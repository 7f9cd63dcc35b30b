"""Guard over a rank until MPI has begun, for until then no other rank can know of its end.

A fault-tolerant Open MPI (5.0.11) does not end a world of which a rank died before MPI_Init, by a
broken import or for want of memory: all others wait in MPI_Init for ever. Nor does any MPI notice
a rank that hangs there. So a small process stands beside each rank, forked before anything is
imported. It says what happened, ends the world, and is gone once MPI has begun.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from mpi_dcasgd.drivers.launcher_above import LauncherAbove, find_launcher, stopped_rank
from mpi_dcasgd.drivers.signals import outlives_deaths

_ASK_S = 20.0
"""Seconds after which the guard looks for the job's patience, as most starts are over by then."""
_OTHERS_S = 10.0
"""Seconds more for MPI_Init, which waits for a rank whose own guard is to speak first."""
_LAST_WORDS_S = 5.0
"""Seconds in which a launcher ends by itself after a rank that has ended by itself."""
_LOOK_EVERY_S = 0.2
_LONGEST_LOOK_S = 1.0

_INIT, _UP, _BYE = b"i", b"u", b"b"

_guard: _Guard | None = None


class _Guard:
    """A rank's end of the pipe to its guard."""

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid = pid
        self.pipe = pipe

    def say(self, word: bytes) -> None:
        with suppress(OSError):  # the guard has gone
            os.write(self.pipe, word)

    def dismiss(self, word: bytes) -> None:
        self.say(word)
        os.close(self.pipe)

    def bury(self) -> None:
        """Leave no zombie of a guard that goes at once; nothing waits for one that does not."""
        for _ in range(100):
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return
            time.sleep(0.01)


def begin_guard(rank: int, patience: Callable[[], float]) -> None:
    """Have this process guarded until `mpi_has_begun`; nothing heavy is imported yet.

    Args:
        rank: Its rank, by its launcher.
        patience: Returns the seconds that the others may wait for it; called by the guard.
    """
    global _guard
    launcher = find_launcher()
    reading, writing = os.pipe()
    guarded = os.getpid()
    pid = os.fork()
    if pid:
        os.close(reading)
        _guard = _Guard(pid, writing)
        return
    try:
        os.setsid()  # what kills the rank's group is to leave this one
        os.close(writing)
        _watch(reading, guarded, f"rank {rank} on {socket.gethostname()}", launcher, patience)
    finally:
        os._exit(0)


def mpi_begins() -> None:
    """Tell the guard that this process has come to MPI_Init, which waits for all others."""
    if _guard is not None:
        _guard.say(_INIT)


def mpi_has_begun() -> None:
    """Dismiss the guard: from now on the ranks see to one another."""
    guard = _dismiss(_UP)
    if guard is not None:
        guard.bury()


def ends_by_itself() -> None:
    """Tell the guard that this process ends, having said why."""
    _dismiss(_BYE)


def _dismiss(word: bytes) -> _Guard | None:
    global _guard
    guard, _guard = _guard, None
    if guard is not None:
        guard.dismiss(word)
    return guard


def _watch(
    pipe: int,
    guarded: int,
    name: str,
    launcher: LauncherAbove | None,
    patience: Callable[[], float],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Stand beside a rank, in a process of its own, until MPI has begun or the rank is no more."""
    patience_s: float | None = None
    waited_s, within_init = 0.0, False
    last, work = clock(), Work(guarded)
    while os.getppid() == guarded:
        ready = select.select([pipe], [], [], _LOOK_EVERY_S)[0]
        now = clock()
        passed_s = min(now - last, _LONGEST_LOOK_S)  # a host that was suspended does not count
        counted_s = work.counted_s(passed_s)
        waited_s += passed_s if within_init else counted_s
        last = now
        words = os.read(pipe, 4096) if ready else b""
        if _UP in words:
            return
        if _BYE in words:
            _after_bye(name, launcher)
        if ready and not words:
            break
        if _INIT in words:
            within_init, waited_s = True, 0.0
        if waited_s < _ASK_S:
            continue
        patience_s = patience() if patience_s is None else patience_s
        waits = within_init and not work.stopped  # for others; one that is stopped is the cause
        if waited_s >= patience_s + (_OTHERS_S if waits else 0.0):
            _give_up(guarded, name, waited_s, waits, launcher)
    last_words = _unread(pipe)  # it was gone before this process came to reading them
    if _UP in last_words:
        return
    if _BYE in last_words:
        _after_bye(name, launcher)
    if outlives_deaths() and launcher is not None:
        _say(f"{name} died before MPI had begun, and the others wait for it: ending the run")
        launcher.end()


def _unread(pipe: int) -> bytes:
    """Return what a process that is gone has said and nobody has read yet."""
    return os.read(pipe, 4096) if select.select([pipe], [], [], 0)[0] else b""


class Work:
    """Time for which a process can be blamed: none in which it only waits for a core.

    On a crowded host a start takes many times as long, and nothing hangs.

    Args:
        pid: Its number.
        proc: Folder of the processes.

    Attributes:
        stopped: Whether it was stopped by a signal at the last look.
    """

    def __init__(self, pid: int, proc: Path = Path("/proc")) -> None:
        self._stat = proc / str(pid) / "stat"
        self.stopped = False
        self._worked_s = self._look()[1]

    def counted_s(self, passed_s: float) -> float:
        """Return how much counts of the time since the last look.

        All of it counts for a process that sleeps, is stopped or waits for a disk, and only what
        it has computed for one that computes or is about to.

        Args:
            passed_s: Seconds since then.
        """
        ready, worked_s = self._look()
        share_s, self._worked_s = worked_s - self._worked_s, worked_s
        return min(passed_s, share_s) if ready else passed_s

    def _look(self) -> tuple[bool, float]:
        """Return whether it computes or waits for a core, and its processor time so far."""
        try:
            fields = self._stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            return False, 0.0
        self.stopped = fields[0] == "T"
        return fields[0] == "R", (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _after_bye(name: str, launcher: LauncherAbove | None) -> NoReturn:
    """End a launcher that stays behind for the others after this rank has ended by itself."""
    if outlives_deaths() and launcher is not None:
        deadline = time.monotonic() + _LAST_WORDS_S
        while launcher.alive():
            if time.monotonic() > deadline:
                _say(f"{name} ended before MPI had begun, and the others wait for it")
                launcher.end()
            time.sleep(_LOOK_EVERY_S)
    os._exit(0)


def _give_up(
    guarded: int, name: str, waited_s: float, within_init: bool, launcher: LauncherAbove | None
) -> NoReturn:
    if within_init:
        stopped = stopped_rank(guarded)
        who = "another rank hangs, or died," if stopped is None else f"rank {stopped} hangs"
        text = f"MPI does not begin on {name}: {who} before MPI_Init"
    else:
        text = f"{name} hangs before MPI has begun"
    _say(f"{text}; waited for {waited_s:.0f} s (faults.setup_patience)")
    with suppress(OSError):
        os.kill(guarded, signal.SIGKILL)  # after which most launchers end the others
    if outlives_deaths() and launcher is not None:
        launcher.end()
    os._exit(0)


def _say(text: str) -> None:
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())
