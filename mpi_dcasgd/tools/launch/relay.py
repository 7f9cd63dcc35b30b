"""Output of a world on its way into a pipe, whose reader may leave before the world ends.

Open MPI's mpirun ends its ranks when it cannot write to a pipe any more (``run ... | head``), and
does not let SIGPIPE be ignored. So it writes into a pipe of ours, which is always read.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

_LAST_S = 5.0  # for what is under way when the world has ended
_TAIL_BYTES = 1 << 16


class Tail:
    """Last part of what goes through a relay."""

    def __init__(self) -> None:
        self._content = b""

    def add(self, content: bytes) -> None:
        """Take what has come."""
        self._content = (self._content + content)[-_TAIL_BYTES:]

    @property
    def text(self) -> str:
        """The last part of what has come."""
        return self._content.decode(errors="replace")


@contextmanager
def outliving_reader(
    given: IO[bytes] | None, number: int, tail: Tail | None = None
) -> Iterator[IO[bytes] | int | None]:
    """Give a child what to write to in place of one of this process's streams.

    Args:
        given: Another file that the child is to write to; it is handed on.
        number: This process's stream if none is given, 1 or 2.
        tail: Is to have the last part of it.
    """
    if given is not None or (tail is None and not _is_pipe(number)):
        yield given
        return
    reading, writing = os.pipe()
    relay = threading.Thread(target=_relay, args=(reading, number, tail), name="relay", daemon=True)
    relay.start()
    try:
        yield writing
    finally:
        os.close(writing)
        # A process that was left behind may hold the other end: it is not waited for.
        relay.join(_LAST_S)


def _relay(reading: int, number: int, tail: Tail | None) -> None:
    heard = True
    while content := os.read(reading, 1 << 16):
        if tail is not None:
            tail.add(content)
        while heard and content:
            try:
                content = content[os.write(number, content) :]
            except OSError:
                heard = False
    os.close(reading)


def _is_pipe(number: int) -> bool:
    try:
        mode = os.fstat(number).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
