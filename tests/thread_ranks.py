"""Ranks of a world that are threads of one process, for meetings without MPI."""

from __future__ import annotations

import socket
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

from mpi_dcasgd.drivers.meeting import Meeting

NEVER = "never"
HOST = socket.gethostname()


class Request:
    def Test(self) -> bool:  # noqa: N802 - as in MPI
        return True


class Comm:
    """A rank of a world whose ranks are threads."""

    def __init__(self, mail: dict[tuple[int, int, int], deque[Any]], rank: int, size: int) -> None:
        self._mail, self.rank, self.size = mail, rank, size

    def isend(self, value: Any, dest: int, tag: int) -> Request:
        self._mail[self.rank, dest, tag].append(value)
        return Request()

    def iprobe(self, source: int, tag: int) -> bool:
        return bool(self._mail[source, self.rank, tag])

    def recv(self, source: int, tag: int) -> Any:
        return self._mail[source, self.rank, tag].popleft()


def meet(
    size: int, act: Callable[[Meeting], Any], patience: Any = NEVER, absent: int | None = None
) -> dict[int, Any]:
    """What each rank returns or raises; one that is absent never comes."""
    mail: dict[tuple[int, int, int], deque[Any]] = defaultdict(deque)
    found: dict[int, Any] = {}

    def rank(number: int) -> None:
        try:
            found[number] = act(Meeting(Comm(mail, number, size), patience))  # type: ignore[arg-type]
        except Exception as error:
            found[number] = error

    present = [number for number in range(size) if number != absent]
    threads = [threading.Thread(target=rank, args=(number,), daemon=True) for number in present]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(found) == present
    return found
