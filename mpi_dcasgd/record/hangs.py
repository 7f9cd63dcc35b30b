"""File systems that hang: whatever waits for one for too long is named, and does so no longer.

A write to a network file system whose server is gone does not fail: it waits, for hours, and the
thread that trains with it. So whoever reads or writes a file of a run says so (``working_on``), and
a thread beside it looks how long that takes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LONGEST_LOOK_S = 1.0  # what was longer, this process was suspended for
_LOOKS = 10.0
"""Looks within a patience, at least."""


@dataclass
class _Work:
    """Work of one thread on one file.

    Attributes:
        path: The file.
        ends: Whether the run cannot go on without it.
        beats: Pieces so far.
    """

    path: Path | str
    ends: bool
    beats: int = 0


_at_work: dict[int, _Work | None] = {}
"""Work of each thread that is at any; None for one that others look after."""


@contextmanager
def working_on(path: Path | str, *, ends: bool = True) -> Iterator[None]:
    """Let a watch know what this thread works on; work within work is another piece of it.

    Args:
        path: The file, or a name for people.
        ends: Whether the run cannot go on without it; work within work that it can go on without
            is such work, too.

    Example:
        >>> with working_on("weights.pt"):
        ...     alive()
    """
    thread = threading.get_ident()
    outer = _at_work.get(thread)
    if outer is None and thread in _at_work:
        yield
        return
    _at_work[thread] = _Work(path, ends and (outer is None or outer.ends))
    try:
        yield
    finally:
        if outer is None:
            del _at_work[thread]
        else:
            outer.beats += 1
            _at_work[thread] = outer


@contextmanager
def looked_after() -> Iterator[None]:
    """Let no watch look at what this thread works on, since somebody else does."""
    thread = threading.get_ident()
    _at_work[thread] = None
    try:
        yield
    finally:
        del _at_work[thread]


def alive() -> None:
    """Note that a piece of this thread's work is done."""
    work = _at_work.get(threading.get_ident())
    if work is not None:
        work.beats += 1


class HangWatch:
    """Thread that looks how long all threads of this process work on their files.

    Args:
        patience_s: Seconds without a piece after which work is held to hang.
        found: Is given a line for people about work that hangs, once, and whether the run cannot go
            on without it. It may end the process.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        patience_s: float,
        found: Callable[[str, bool], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience_s = patience_s
        self._found = found
        self._clock = clock
        self._last = clock()
        self._passed_s = 0.0
        self._seen: dict[int, tuple[_Work, int, float]] = {}
        self._told: dict[int, _Work] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="files", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, which holds on to what is told of a file that hangs."""
        self._ended.set()
        self._thread.join(_LONGEST_LOOK_S)  # it may be telling of one

    def look(self) -> None:
        """Let time pass, and name what hangs."""
        now = self._clock()
        # A look that comes late was not late by the file system's fault.
        self._passed_s += min(now - self._last, _LONGEST_LOOK_S)
        self._last = now
        works = {thread: work for thread, work in list(_at_work.items()) if work is not None}
        self._seen = {
            thread: self._seen[thread]
            if thread in self._seen
            and self._seen[thread][0] is work
            and self._seen[thread][1] == work.beats
            else (work, work.beats, self._passed_s)
            for thread, work in works.items()
        }
        for thread, (work, _, since_s) in self._seen.items():
            silent_s = self._passed_s - since_s
            if silent_s >= self._patience_s and self._told.get(thread) is not work:
                self._told[thread] = work
                text = (
                    f"{work.path} hangs: nothing of it has been read or written for "
                    f"{silent_s:.1f} s (checkpoint.patience_s); look at the file system"
                )
                self._found(text, work.ends)

    def _run(self) -> None:
        while not self._ended.wait(min(_LONGEST_LOOK_S / 2, self._patience_s / _LOOKS)):
            self.look()
