"""Loader: makes the task and its data, then loads the batches that its rank asks for.

It is a fork of its rank's `parent`, made before anything of the user's was imported, and ends when
its socket does: with the run, or with the rank, however that ends.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
import sys
from collections.abc import Mapping
from typing import Any

import torch

from mpi_dcasgd.learning.data.dataset import ResidentSplit, Split
from mpi_dcasgd.learning.loaders.messages import Begin, Loaded, Opened, Refusal, Request
from mpi_dcasgd.learning.loaders.wire import receive, send
from mpi_dcasgd.learning.subject import Subject
from mpi_dcasgd.modules import searching


def serve(channel: socket.socket) -> None:
    """Answer a rank's requests until it closes the socket or ends."""
    # The rank has ended, or does not want anything (any more).
    with contextlib.suppress(EOFError, ConnectionError), contextlib.ExitStack() as to_the_end:
        _answer(channel, to_the_end)


def _answer(channel: socket.socket, to_the_end: contextlib.ExitStack) -> None:
    try:
        splits = _open(receive(channel), to_the_end)
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


def _open(begin: Begin, to_the_end: contextlib.ExitStack) -> Mapping[str, Split]:
    """Make the task; return those of its splits whose samples do not lie in memory."""
    sys.path[:] = begin.path
    to_the_end.enter_context(searching(*begin.folders))
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
    split = splits[request.split]
    return Loaded([split.batch(part, request.rng) for part in request.parts])
