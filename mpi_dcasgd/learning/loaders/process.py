"""Loader process: makes the task and its data, then loads the batches that its rank asks for.

It is a program of its own. It has nothing of its rank but one socket, does not start MPI, and ends
when the socket does: with the run, or with the rank, however that ends. PyTorch is imported only
once signals are ignored.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mpi_dcasgd.quick import importing_torch

if TYPE_CHECKING:
    from mpi_dcasgd.learning.data.dataset import Split
    from mpi_dcasgd.learning.loaders.messages import Begin, Request

IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Signals that whoever sends them, a terminal or SLURM, means for the rank."""

_GRACE_S = 1.0  # for a sample that nobody waits for any more
_LOOK_MS = 5000
_PR_SET_PDEATHSIG = 1
_to_the_end = contextlib.ExitStack()


def serve(descriptor: int, rank: int, *, tied: bool) -> None:
    """Answer a rank's requests until it closes the socket or ends.

    Args:
        descriptor: Of the socket.
        rank: The rank's process.
        tied: Whether this process was started by the rank's main thread.
    """
    for signum in IGNORED:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
    channel = socket.socket(fileno=descriptor)
    _end_with(channel, rank, tied=tied)
    sys.argv = sys.argv[:1]
    with contextlib.suppress(AttributeError):  # of a stream that is none
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    _keep_mpi_off()
    # The rank has ended, or does not want anything (any more).
    with contextlib.suppress(EOFError, ConnectionError):
        _answer(channel)


def _answer(channel: socket.socket) -> None:
    with importing_torch():
        from mpi_dcasgd.learning.loaders.messages import Opened, Refusal
        from mpi_dcasgd.learning.loaders.wire import receive, send

    try:
        splits = _open(receive(channel))
    except (EOFError, ConnectionError):
        raise
    except Exception as error:
        send(channel, Refusal.of(error, "make the task's data"))
        return
    send(channel, Opened({name: len(split) for name, split in splits.items()}))
    while True:
        request = receive(channel)
        try:
            send(channel, _load(splits, request))
        except ConnectionError:
            raise
        except Exception as error:  # of a sample, or of a batch that cannot be pickled
            send(channel, Refusal.of(error, f"load {request}"))


def _open(begin: Begin) -> Mapping[str, Split]:
    """Make the task; return those of its splits whose samples do not lie in memory."""
    sys.path[:] = begin.path
    import torch

    from mpi_dcasgd.learning.data.dataset import ResidentSplit
    from mpi_dcasgd.learning.subject import Subject
    from mpi_dcasgd.modules import searching

    _to_the_end.enter_context(searching(*begin.folders))
    opening = pickle.loads(begin.opening)
    torch.set_num_threads(opening.threads)
    task = opening.task.make(opening.model, opening.data)
    subject = Subject.open(task, opening.seed, torch.device("cpu"), opening.data.validation)
    splits = {"train": subject.train, "test": subject.test, "validation": subject.validation}
    return {
        name: split
        for name, split in splits.items()
        if split is not None and not isinstance(split, ResidentSplit)
    }


def _load(splits: Mapping[str, Split], request: Request) -> Any:
    from mpi_dcasgd.learning.loaders.messages import Loaded

    split = splits[request.split]
    return Loaded([split.batch(part, request.rng) for part in request.parts])


def _keep_mpi_off() -> None:
    """Let a user's module import ``mpi4py.MPI`` without starting MPI."""
    try:
        import mpi4py
    except ImportError:
        return
    mpi4py.rc.initialize = False
    mpi4py.rc.finalize = False


def _end_with(channel: socket.socket, rank: int, *, tied: bool) -> None:
    """Have this process end soon after its rank, in the middle of a sample, too."""
    if tied and sys.platform == "linux":
        # Helps even where a sample hangs and does not let other threads run. The kernel sends it
        # when the thread ends that started this process, so that has to be the main one.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, args=(channel, rank), daemon=True).start()


def _watch(channel: socket.socket, rank: int) -> None:
    poll = select.poll()
    poll.register(channel, select.POLLRDHUP)
    # A process that the rank forked has the socket, too, and may outlive it.
    while not poll.poll(_LOOK_MS) and os.getppid() == rank:
        pass
    time.sleep(_GRACE_S)
    os._exit(1)
