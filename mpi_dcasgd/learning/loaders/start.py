"""Start of a rank's loaders: their parent, as the rank sees it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import ExitStack

from mpi_dcasgd.stop_signals import SIGNALS, signal_name

_PROGRAM = """\
import sys
number = int(sys.argv[1])
rank, tied, control, *channels = map(int, sys.argv[2 : 5 + number])
sys.path[:] = sys.argv[5 + number :]
from mpi_dcasgd.learning.loaders.parent import run
run(rank, control, channels, tied=bool(tied))
"""

_LAUNCHERS = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "MPICH_", "HYDRA_", "HOROVOD_")
"""Variables by which MPI would take the process for its rank."""

_END_S = 5.0  # until processes that do not end are killed


class Parent:
    """The program that forks a rank's loaders, and what it tells of them.

    Starting it is safe beside MPI, before and after it has started. The new process is not a fork,
    which would share the memory that a network card writes to, copied or not, and MPI's descriptors
    and locks in the middle of whatever its threads did. On Linux Python starts it by vfork and
    exec: no page is copied or marked to be copied, and nothing but exec happens until the memory is
    another. All descriptors but its sockets are closed. ``multiprocessing`` would start it in the
    same way, but then import the user's main program, which may well begin to train.

    Args:
        number: How many loaders it is to fork.

    Attributes:
        channels: This end of each loader's socket.

    Raises:
        OSError: The system refuses.
    """

    def __init__(self, number: int) -> None:
        self.channels: list[socket.socket] = []
        self._pids: list[Future[int]] = [Future() for _ in range(number)]
        self._ends: list[Future[int | None]] = [Future() for _ in range(number)]
        self._failure = 0  # number of the error that kept a loader from being forked
        with ExitStack() as mine, ExitStack() as theirs:
            descriptors = []
            for _ in range(number + 1):
                here, there = socket.socketpair()
                self.channels.append(mine.enter_context(here))
                descriptors.append(theirs.enter_context(there).fileno())
            self._control = self.channels.pop(0)
            self._process = _start(descriptors)
            mine.pop_all()  # they stay open
        self._thread = threading.Thread(target=self._listen, name="loaders", daemon=True)
        self._thread.start()

    def pid(self, number: int) -> int:
        """Return the number of a loader's process, or of this one while that is not forked."""
        told = self._pids[number]
        return told.result() if told.done() else self._process.pid

    def how_it_ended(self, number: int, doing: str) -> str:
        """Return what has become of a loader, as a sentence; wait a little for it to end.

        Args:
            number: The loader.
            doing: What it was asked to do.
        """
        try:
            status = self._ends[number].result(_END_S)
            how = "" if status is None else _ending(status)
        except TimeoutError:
            how = "closed its socket"
        parent = f"process {self._process.pid}"
        if not how and self._failure:
            return f"a process cannot be started: {os.strerror(self._failure)}"
        printed = "what it printed is in the rank's output"
        if not how and not self._pids[number].done():
            return (
                f"the loaders' parent, {parent}, {self._own_end()} before it had started them; "
                + printed
            )
        how = how or f"ended with its parent, {parent}, which {self._own_end()}"
        return f"the loader process {self.pid(number)} {how} while it was {doing}; {printed}"

    def end(self) -> None:
        """Wait until all have ended, or have them killed."""
        self._control.shutdown(socket.SHUT_WR)  # for a parent that has not come to forking
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # and the kernel its loaders
            self._process.wait()
        self._thread.join()
        self._control.close()
        for channel in self.channels:
            channel.close()

    def _own_end(self) -> str:
        try:
            return _ending(self._process.wait(_END_S))
        except subprocess.TimeoutExpired:
            return "closed its socket"

    def _listen(self) -> None:
        with self._control.makefile() as told:
            for line in told:
                what, number, value = line.split()
                if what == "fail":
                    self._failure = int(value)
                else:
                    futures = self._pids if what == "pid" else self._ends
                    futures[int(number)].set_result(int(value))
        for end in self._ends:
            if not end.done():
                end.set_result(None)


def _start(descriptors: list[int]) -> subprocess.Popen[bytes]:
    tied = threading.current_thread() is threading.main_thread()
    arguments = (len(descriptors) - 1, os.getpid(), int(tied), *descriptors)
    env = {key: value for key, value in os.environ.items() if not key.startswith(_LAUNCHERS)}
    env["CUDA_VISIBLE_DEVICES"] = ""  # or each loader could take hundreds of MiB of the rank's GPU
    # What is sent to all processes of a terminal or of a SLURM step is held back until the new
    # process ignores it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *map(str, arguments), *sys.path],
            stdin=subprocess.DEVNULL,
            pass_fds=descriptors,
            env=env,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    why = " (out of memory?)" if -status == signal.SIGKILL else ""
    return f"was killed by {signal_name(-status)}{why}"
