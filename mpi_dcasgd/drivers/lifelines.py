"""Lifelines between the server and its workers: the end of a process is seen whatever its kind.

A fault-tolerant MPI reports a process that has ended, and Open MPI's mpirun ends a world of which
one has. Other launchers do not look at one that leaves by C's ``exit`` or by ``os._exit``, as a
library or a user's code may, with status 0 and without a word to anybody. So each worker holds a
socket that leads to the server. Nothing is ever sent on it; the kernel closes it with the process.
Where there is none, for a firewall, the worker is given up after the patience.
"""

from __future__ import annotations

import secrets
import select
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mpi_dcasgd.drivers.topology import SERVER, Topology

if TYPE_CHECKING:
    from mpi_dcasgd.drivers.meeting import Meeting

GRACE_S = 2.0
"""Seconds after which an end that nobody has told of is told: MPI knows more of a death."""
_CONNECT_S = 3.0
_SUCCESSOR_S = 10.0
_LOOK_EVERY_S = 0.1
_TOKEN = 16
_WORKER = 4

TEXT = "its process has ended without a word (exit status 0, or C's exit)"


class Lifelines:
    """The server's ends.

    Args:
        lines: Socket of each worker that has one.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, lines: Mapping[int, socket.socket], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lines = dict(lines)
        self._clock = clock
        self._poll = select.poll()
        self._workers = {line.fileno(): worker for worker, line in self._lines.items()}
        for number in self._workers:
            self._poll.register(number, select.POLLIN)
        self._ended_s: dict[int, float] = {}
        self._next_s = 0.0

    def ended(self) -> list[int]:
        """Return, once, the workers whose processes have ended a while ago."""
        now = self._clock()
        if now < self._next_s or not (self._lines or self._ended_s):
            return []
        self._next_s = now + _LOOK_EVERY_S
        for number, _ in self._poll.poll(0):
            worker = self._workers[number]
            self._poll.unregister(number)
            self._lines.pop(worker).close()
            self._ended_s[worker] = now
        late = [worker for worker, since in self._ended_s.items() if now - since >= GRACE_S]
        for worker in late:
            del self._ended_s[worker]
        return late

    def close(self) -> None:
        """Let go of all."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()


def hold_lifelines(
    meeting: Meeting, world: Topology, own: int | None
) -> Lifelines | socket.socket | None:
    """Connect each worker with the server; every rank has to call this.

    Args:
        meeting: Of all ranks.
        world: Which ranks serve.
        own: The worker that this rank is; None for the server.

    Returns:
        On the server what looks after them; on a worker what has to be kept, or None if there is
        no way.
    """
    listener = token = None
    if meeting.rank == SERVER:
        token = secrets.token_bytes(_TOKEN)
        alone = len(set(meeting.hosts)) == 1
        with suppress(OSError):
            listener = socket.create_server(
                ("127.0.0.1" if alone else "", 0), backlog=world.num_workers
            )
    port = listener.getsockname()[1] if listener else None
    port, token = meeting.bcast((port, token))
    line = None
    if own is not None and port is not None:
        near = meeting.hosts[meeting.rank] == meeting.hosts[SERVER]
        line = _connect("127.0.0.1" if near else meeting.hosts[SERVER], port, token, own)
    expected = sum(meeting.allgather(line is not None))
    if meeting.rank != SERVER:
        return line
    lines = _accept(listener, token, expected) if listener else {}
    return Lifelines(lines)


class Successors:
    """Lifelines of processes that are started in place of workers, one after the other.

    Example:
        >>> Successors().ended(0, 1)
        False
    """

    def __init__(self) -> None:
        self._lines: dict[tuple[int, int], socket.socket] = {}

    def invite(self, *, alone: bool) -> tuple[socket.socket | None, dict[str, Any]]:
        """Return what is to be handed to `accept`, and what the process has to know.

        Args:
            alone: All processes are on this host.
        """
        token = secrets.token_bytes(_TOKEN)
        try:
            listener = socket.create_server(("127.0.0.1" if alone else "", 0))
        except OSError:
            return None, {}
        return listener, {"port": listener.getsockname()[1], "token": token}

    def accept(
        self, listener: socket.socket | None, word: Mapping[str, Any], worker: int, number: int
    ) -> None:
        """Wait a little for the process, which may have no way to connect."""
        if listener is not None:
            lines = _accept(listener, word["token"], 1, _SUCCESSOR_S)
            for line in lines.values():
                self._lines[worker, number] = line

    def ended(self, worker: int, number: int) -> bool:
        """Return whether the n-th process in place of a worker is known to have ended."""
        line = self._lines.get((worker, number))
        return line is not None and bool(select.select([line], [], [], 0)[0])

    def close(self) -> None:
        """Let go of all."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()


def _connect(host: str, port: int, token: bytes, worker: int) -> socket.socket | None:
    try:
        line = socket.create_connection((host, port), _CONNECT_S)
        line.sendall(token + worker.to_bytes(_WORKER, "big"))
        line.settimeout(None)
    except OSError:
        return None
    return line


def _accept(
    listener: socket.socket, token: bytes, expected: int, timeout_s: float = _CONNECT_S
) -> dict[int, socket.socket]:
    """Take the connections that have been made; strangers are sent away."""
    lines: dict[int, socket.socket] = {}
    with listener:
        listener.settimeout(timeout_s)
        while len(lines) < expected:
            try:
                line, _ = listener.accept()
                line.settimeout(_CONNECT_S)
                word = line.recv(_TOKEN + _WORKER, socket.MSG_WAITALL)
            except OSError:
                break
            if secrets.compare_digest(word[:_TOKEN], token) and len(word) == _TOKEN + _WORKER:
                lines[int.from_bytes(word[_TOKEN:], "big")] = line
            else:
                line.close()
    return lines
