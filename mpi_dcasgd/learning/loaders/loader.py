"""One loader as its rank sees it."""

from __future__ import annotations

import logging
import queue
import socket
import threading
from concurrent.futures import CancelledError, Future
from typing import Any

from mpi_dcasgd.errors import DataError, UserError
from mpi_dcasgd.learning.loaders.messages import Begin, Opened, Refusal, Request
from mpi_dcasgd.learning.loaders.start import Parent
from mpi_dcasgd.learning.loaders.wire import receive, send

_log = logging.getLogger(__name__)

Entry = tuple[int, int, Request | None, "Future[Any]"]
"""Urgency, the lowest first; place among those of one urgency; request; its batches."""


class Loader:
    """One process, and the thread that talks to it.

    The thread waits, and receives bytes into their place; both leave the interpreter to others.

    Args:
        parent: Of the process.
        number: The process among its parent's.
        todo: What this or another loader has to answer next; no request has the thread end.
    """

    def __init__(self, parent: Parent, number: int, todo: queue.PriorityQueue[Entry]) -> None:
        self._parent = parent
        self._number = number
        self._channel = parent.channels[number]
        self._todo = todo
        self._parting = False
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int:
        """Number of the process, or of its parent while that has not forked it."""
        return self._parent.pid(self._number)

    def begin(self, first: Begin) -> Future[Any]:
        """Send the first message; the result is the answer."""
        future: Future[Any] = Future()
        self._thread = threading.Thread(
            target=self._talk, args=(first, future), name="loader", daemon=True
        )
        self._thread.start()
        return future

    def part(self) -> None:
        """Let the process and the thread know that nobody wants anything any more."""
        self._parting = True
        self._channel.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Wait for the thread."""
        if self._thread is not None:
            self._thread.join()

    def _talk(self, first: Begin, opened: Future[Any]) -> None:
        self._ask(first, opened)
        while True:
            *_, request, future = self._todo.get()
            if request is None:
                return
            self._ask(request, future)

    def _ask(self, message: Begin | Request, future: Future[Any]) -> None:
        try:
            send(self._channel, message)
            answer = receive(self._channel)
        except (EOFError, OSError):
            # Whatever is asked of a process that has ended fails, so that nobody waits for ever.
            future.set_exception(CancelledError() if self._parting else self._death(message))
        except BaseException as error:
            future.set_exception(error)
        else:
            if isinstance(answer, Refusal):
                _log.debug("a loader process said:\n%s", answer.trace)
                future.set_exception(answer.error())
            else:
                future.set_result(answer if isinstance(answer, Opened) else answer.batches)

    def _death(self, message: Begin | Request) -> UserError:
        doing = f"loading {message}" if isinstance(message, Request) else "making the task's data"
        return DataError(f"data.loaders: {self._parent.how_it_ended(self._number, doing)}")
