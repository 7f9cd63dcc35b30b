"""Parent of a rank's loaders: imports PyTorch once, forks the loaders, and tells how they end.

It is a program of its own. It has nothing of its rank but sockets, does not start MPI, runs nothing
of the user's, and ends when the rank does. What PyTorch's import has made is then in memory once
for all loaders of the rank, and was read from the file system once.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence

from mpi_dcasgd.quick import importing_torch
from mpi_dcasgd.stop_signals import SIGNALS

_GRACE_S = 1.0  # for a sample that nobody waits for any more
_LOOK_MS = 5000
_PR_SET_PDEATHSIG = 1
_forked = threading.Event()  # in the parent, once the loaders are there


def run(rank: int, control: int, channels: Sequence[int], *, tied: bool) -> None:
    """Fork the loaders and wait for them; in each of them, answer the rank.

    Args:
        rank: The rank's process.
        control: Descriptor of the socket on which the rank is told of the loaders: ``pid``, a
            loader and its process, or ``end``, a loader and its exit status, or ``fail``, a loader
            that cannot be forked and the error's number; a line each.
        channels: Descriptor of each loader's socket.
        tied: Whether this process was started by the rank's main thread.
    """
    for signum in SIGNALS:  # they are meant for the rank
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, nobody learns of an end
    to_rank, *sockets = map(_adopted, (control, *channels))
    _end_with(to_rank, rank, tied=tied)
    sys.argv = sys.argv[:1]
    with contextlib.suppress(AttributeError):  # of a stream that is none
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    _keep_mpi_off()
    if sys.platform == "linux":  # elsewhere what it loads may not outlive a fork
        _import()
    channel = _fork(to_rank, sockets)
    if channel is not None:
        _import()
        from mpi_dcasgd.learning.loaders.process import serve

        serve(channel)


def _import() -> None:
    with importing_torch():
        import mpi_dcasgd.learning.loaders.process
        import mpi_dcasgd.learning.subject  # noqa: F401


def _fork(to_rank: socket.socket, channels: Sequence[socket.socket]) -> socket.socket | None:
    """Fork a loader for each socket; return it in the loader, and None when that is over."""
    me = os.getpid()
    numbers = {}
    for number, channel in enumerate(channels):
        try:
            pid = os.fork()
        except OSError as error:
            _tell(to_rank, "fail", number, error.errno or 0)
            return None  # and the kernel ends the others with this process
        if pid == 0:
            for other in (to_rank, *channels[number + 1 :]):
                other.close()
            _end_with(channel, me, tied=True)
            return channel
        channel.close()
        numbers[pid] = number
        _tell(to_rank, "pid", number, pid)
    _forked.set()
    while numbers:
        pid, status = os.wait()
        _tell(to_rank, "end", numbers.pop(pid), os.waitstatus_to_exitcode(status))
    return None


def _tell(to_rank: socket.socket, what: str, number: int, value: int) -> None:
    with contextlib.suppress(ConnectionError):  # the rank has ended
        to_rank.sendall(f"{what} {number} {value}\n".encode())


def _adopted(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)  # it was, for this program
    return socket.socket(fileno=descriptor)


def _keep_mpi_off() -> None:
    """Let a user's module import ``mpi4py.MPI`` without starting MPI."""
    try:
        import mpi4py
    except ImportError:
        return
    mpi4py.rc.initialize = False
    mpi4py.rc.finalize = False


def _end_with(channel: socket.socket, above: int, *, tied: bool) -> None:
    """Have this process end soon after that above it, in the middle of a sample, too."""
    if tied and sys.platform == "linux":
        # Helps even where a sample hangs and does not let other threads run. The kernel sends it
        # when the thread ends that started this process, so that has to be the main one.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, args=(channel, above), daemon=True).start()


def _watch(channel: socket.socket, above: int) -> None:
    poll = select.poll()
    poll.register(channel, select.POLLRDHUP)
    # A process that the rank forked has the socket, too, and may outlive it.
    while os.getppid() == above:
        [(_, seen)] = poll.poll(_LOOK_MS) or [(0, 0)]
        if seen & select.POLLHUP or (seen and not _forked.is_set()):
            break
        if seen:  # nobody wants the loaders: they know, and this one is to tell how they end
            poll.modify(channel, 0)
    time.sleep(_GRACE_S)
    os._exit(1)
