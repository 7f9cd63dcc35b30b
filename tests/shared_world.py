"""One MPI world for all tests that kill nobody: starting ranks takes longer than what they do.

Each of its ranks is tests/world_rank.py. A world in which a function failed, or that a test had to
give up, is killed; the next test that asks gets another.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.tools.launch.world import plan

TESTS = Path(__file__).parent
SIZE = 5


@dataclass(frozen=True)
class Answer:
    """What a function returned on one rank, and what it wrote there."""

    value: Any
    stdout: str
    stderr: str
    error: str


class _LostError(Exception):
    """The world cannot be used any more, and why."""


class SharedWorld:
    """Calls functions on the first ranks of a world, which is started when it is first needed.

    Args:
        processes: Starts and finds the world's processes; they are the tests' session's.
    """

    def __init__(self, processes: Any) -> None:
        self._processes = processes
        self._mpirun: Any = None
        self._ranks: list[socket.socket] = []
        self._unread: dict[socket.socket, bytes] = {}

    def __call__(
        self,
        function: str,
        *arguments: Any,
        ranks: int = SIZE,
        timeout: float = 100,
        cwd: Path = TESTS.parent,
        path: Sequence[Path | str] = (),
    ) -> list[Answer]:
        """Call ``function(comm, *arguments)`` on each of the first ranks.

        Args:
            function: ``module:name``; the module is one of tests/ or tests/mpi/.
            arguments: Values that JSON can hold, or paths.
            ranks: How many of the ranks call it; the others wait.
            timeout: Seconds until the world is killed and the test fails.
            cwd: The folder in which it is called.
            path: Folders from which it may import more.
        """
        request = {
            "function": function,
            "arguments": [str(each) if isinstance(each, Path) else each for each in arguments],
            "ranks": ranks,
            "cwd": str(cwd),
            "path": [str(folder) for folder in path],
        }
        line = (json.dumps(request) + "\n").encode()
        deadline = time.monotonic() + timeout
        try:
            if self._mpirun is None:
                self._start(deadline)
            members = self._ranks[:ranks]
            for rank in members:
                rank.sendall(line)
            answers = self._answers(members, deadline)
        except _LostError as lost:
            reason = f"{function} on {ranks} ranks: {lost}\n{self._kill()}"
        except BaseException:  # the test's own time is up, or somebody pressed Ctrl-C
            self._kill()
            raise
        else:
            return answers
        pytest.fail(reason)

    def close(self) -> None:
        """Let all ranks end by themselves."""
        if self._mpirun is None:
            return
        for rank in self._ranks:
            rank.close()
        finished = self._processes.finish(self._mpirun, 60)
        assert finished.status == 0, finished

    def _start(self, deadline: float) -> None:
        address = os.path.join(tempfile.mkdtemp(prefix="world-"), "s")  # short: sockets need that
        command = plan(SIZE, [sys.executable, str(TESTS / "world_rank.py"), address])
        known = filter(None, (str(TESTS), str(TESTS / "mpi"), os.environ.get("PYTHONPATH")))
        env: Mapping[str, str] = {**command.env, "PYTHONPATH": os.pathsep.join(known)}
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen(SIZE)
            self._mpirun = self._processes.start(command.argv, env=env)
            ranks = {}
            while len(ranks) < SIZE:
                self._wait([listener], deadline)
                connection, _ = listener.accept()
                self._unread[connection] = b""
                ranks[int(self._line(connection, deadline))] = connection
        self._ranks = [ranks[rank] for rank in range(SIZE)]
        os.unlink(address)
        os.rmdir(os.path.dirname(address))

    def _answers(self, members: Sequence[socket.socket], deadline: float) -> list[Answer]:
        answers: dict[socket.socket, Answer] = {}
        while len(answers) < len(members):
            waited_for = [rank for rank in members if rank not in answers]
            for rank in self._wait(waited_for, deadline):
                answer = answers[rank] = Answer(**json.loads(self._line(rank, deadline)))
                if answer.error:  # the others may wait for this one for ever
                    raise _LostError(f"rank {members.index(rank)}: {answer.error}{answer.stderr}")
        return [answers[rank] for rank in members]

    def _line(self, rank: socket.socket, deadline: float) -> bytes:
        while b"\n" not in self._unread[rank]:
            self._wait([rank], deadline)
            received = rank.recv(1 << 16)
            if not received:
                raise _LostError("a rank has ended")
            self._unread[rank] += received
        line, _, self._unread[rank] = self._unread[rank].partition(b"\n")
        return line

    def _wait(self, sockets: Sequence[socket.socket], deadline: float) -> list[socket.socket]:
        """Those from which something can be read; one at least."""
        ended = os.pidfd_open(self._mpirun.pid)
        try:
            with selectors.DefaultSelector() as selector:
                for each in (*sockets, ended):
                    selector.register(each, selectors.EVENT_READ)
                ready = selector.select(max(0.0, deadline - time.monotonic()))
        finally:
            os.close(ended)
        found = [key.fileobj for key, _ in ready]
        if not found:
            raise _LostError("its time is up")
        if found == [ended]:
            raise _LostError("mpirun has ended")
        return [each for each in sockets if each in found]

    def _kill(self) -> str:
        """End all processes of the world at once; what they wrote outside of the functions."""
        process, self._mpirun = self._mpirun, None
        for rank in self._unread:
            rank.close()
        self._ranks, self._unread = [], {}
        self._processes.kill()
        return str(self._processes.finish(process)) if process is not None else ""
