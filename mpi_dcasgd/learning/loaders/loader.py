"""One loader as its rank sees it."""

from __future__ import annotations

import logging
import queue
import signal
import socket
import subprocess
import threading
from concurrent.futures import CancelledError, Future
from typing import Any

from mpi_dcasgd.errors import DataError, UserError
from mpi_dcasgd.learning.loaders.messages import Begin, Opened, Refusal, Request
from mpi_dcasgd.learning.loaders.start import start_process
from mpi_dcasgd.learning.loaders.wire import receive, send
from mpi_dcasgd.wording import signal_name

_END_S = 5.0  # until a process that does not end is killed

_log = logging.getLogger(__name__)

Entry = tuple[int, int, Request | None, "Future[Any]"]
"""Urgency, the lowest first; place among those of one urgency; request; its batches."""


class Loader:
    """One process, and the thread that talks to it.

    The thread waits, and receives bytes into their place; both leave the interpreter to others.

    Args:
        todo: What this or another loader has to answer next; no request has the thread end.

    Attributes:
        process: The process.
    """

    def __init__(self, todo: queue.PriorityQueue[Entry]) -> None:
        self.process, self._channel = start_process()
        self._todo = todo
        self._parting = False
        self._thread: threading.Thread | None = None

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
        """Wait for both, or kill the process."""
        try:
            self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self._thread is not None:
            self._thread.join()
        self._channel.close()

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
        try:
            status: int | None = self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            status = None
        doing = f"loading {message}" if isinstance(message, Request) else "making the task's data"
        return DataError(
            f"data.loaders: the loader process {self.process.pid} {_ending(status)} while it was "
            f"{doing}; what it printed is in the rank's output"
        )


def _ending(status: int | None) -> str:
    if status is None:
        return "closed its socket"
    if status >= 0:
        return f"ended with status {status}"
    why = " (out of memory?)" if -status == signal.SIGKILL else ""
    return f"was killed by {signal_name(-status)}{why}"
