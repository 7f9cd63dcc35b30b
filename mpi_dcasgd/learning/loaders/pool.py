"""A rank's loaders: the processes, and the batches that are asked of them."""

from __future__ import annotations

import logging
import pickle
import queue
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from itertools import count
from types import TracebackType
from typing import Any

from mpi_dcasgd.errors import ConfigError, DataError
from mpi_dcasgd.learning.data.dataset import ResidentSplit, Split
from mpi_dcasgd.learning.loaders.loader import Entry, Loader
from mpi_dcasgd.learning.loaders.messages import Begin, Opened, Opening, Request
from mpi_dcasgd.learning.loaders.split import LoadedSplit
from mpi_dcasgd.learning.loaders.start import Parent
from mpi_dcasgd.learning.signature import CallSettings
from mpi_dcasgd.learning.subject import Subject
from mpi_dcasgd.modules import searched
from mpi_dcasgd.wording import counted

START_S = 600.0
"""Seconds in which loaders must have made the data after the rank itself has."""

_log = logging.getLogger(__name__)


class Loaders:
    """Processes that load the samples of one rank.

    They begin to start at once, which is to be before MPI does where that is possible, and need
    nothing to be waited for until ``adopt``. Whatever fails is raised by ``begin`` and ``adopt``,
    where all ranks are in step, and later by the batch that is asked for.

    Args:
        number: How many; with 0 of them nothing is done by any method.

    Example:
        >>> with Loaders(0) as loaders:
        ...     bool(loaders)
        False
    """

    def __init__(self, number: int) -> None:
        self._todo: queue.PriorityQueue[Entry] = queue.PriorityQueue()
        self._counter = count()
        self._loaders: list[Loader] = []
        self._failure: OSError | None = None
        self._opened: list[Future[Any]] = []
        self._parent: Parent | None = None
        if number == 0:
            return
        try:
            self._parent = Parent(number)
        except OSError as error:
            self._failure = error
        else:
            self._loaders = [Loader(self._parent, each, self._todo) for each in range(number)]

    def __len__(self) -> int:
        return len(self._loaders)

    def __bool__(self) -> bool:
        return bool(self._loaders) or self._failure is not None

    @property
    def pids(self) -> list[int]:
        """Numbers of the processes, or of their parent while that has not forked them."""
        return [loader.pid for loader in self._loaders]

    def begin(self, opening: Opening) -> None:
        """Have the loaders make the task and its data, while the rank does so, too.

        Raises:
            ConfigError: No other process can make the task.
            DataError: The processes could not be started.
        """
        if self._failure is not None:
            raise DataError(f"data.loaders: a process cannot be started: {self._failure}")
        if not self._loaders:
            return
        first = Begin(list(sys.path), searched(), _pickled(opening, len(self)))
        self._opened = [loader.begin(first) for loader in self._loaders]

    def adopt(self, subject: Subject) -> Subject:
        """Wait for the loaders, and let them load the samples of a subject.

        Args:
            subject: What the rank made itself.

        Returns:
            The same, with splits that are read by the loaders. What lies in memory stays there.

        Raises:
            ConfigError, DataError: What a loader's attempt to make the data raised.
            DataError: A loader ended or hangs, or its data are others.
        """
        deadline = time.monotonic() + START_S
        for loader, future in zip(self._loaders, self._opened, strict=True):
            self._compare(subject, self._wait(loader, future, deadline))
        if not self._loaders:
            return subject
        if not any(map(_is_read, (subject.train, subject.test, subject.validation))):
            _log.warning(
                "data.loaders: the data lie in memory, so %s had nothing to load and "
                "ended; set it to 0",
                counted(len(self), "process"),
            )
            self.close()
            return subject
        validation = subject.validation
        return replace(
            subject,
            train=self._adopted("train", subject.train),
            test=self._adopted("test", subject.test),
            validation=None if validation is None else self._adopted("validation", validation),
        )

    def submit(self, request: Request) -> Callable[[], list[Any]]:
        """Ask for batches; training's come before those of an evaluation.

        Returns:
            A function that waits for the batches and returns them. It raises ``DataError`` if a
            sample cannot be loaded, or its loader has ended.
        """
        future: Future[Any] = Future()
        urgency = 0 if request.split == "train" else 1
        self._todo.put((urgency, next(self._counter), request, future))
        return future.result

    def close(self) -> None:
        """End all processes, also one that hangs, and give everything back."""
        for loader in self._loaders:
            loader.part()
        for _ in self._loaders:  # before all that is left undone
            self._todo.put((-1, next(self._counter), None, Future()))
        for loader in self._loaders:
            loader.end()
        self._loaders = []
        if self._parent is not None:
            self._parent.end()
            self._parent = None
        while not self._todo.empty():
            self._todo.get_nowait()[-1].cancel()

    def __enter__(self) -> Loaders:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _wait(self, loader: Loader, future: Future[Any], deadline: float) -> Opened:
        try:
            opened: Opened = future.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise DataError(
                f"data.loaders: the loader process {loader.pid} has not made the task's "
                f"data within {START_S:g} s after its rank had; does the task's module or its data "
                "set wait for something there? loaders: 0 loads in the rank itself"
            ) from None
        except ConfigError as error:
            raise DataError(
                f"data.loaders: a loader process could not make what its rank could; {error}"
            ) from error
        return opened

    def _compare(self, subject: Subject, opened: Opened) -> None:
        """Refuse data sets that come out differently in another process."""
        for name in ("train", "test", "validation"):
            split: Split | None = getattr(subject, name)
            mine = len(split) if split is not None and _is_read(split) else None
            theirs = opened.lengths.get(name)
            if mine != theirs:
                raise DataError(
                    f"{name} data: {_samples(mine)} in the rank, but {_samples(theirs)} in a "
                    "loader process; they must be equal whichever process makes them"
                )

    def _adopted(self, name: str, split: Split) -> Split:
        return LoadedSplit(name, split, self.submit, len(self)) if _is_read(split) else split


def _pickled(opening: Opening, number: int) -> bytes:
    """The opening as bytes.

    Raises:
        ConfigError: A part of it is of this process alone.
    """
    for section in ("task", "model", "data"):
        source = getattr(opening, section)
        called = source.call_target if isinstance(source, CallSettings) else ""
        module = called.partition(":")[0] or type(source).__module__
        if module == "__main__":
            raise ConfigError(
                opening.job,
                [
                    f"data.loaders: got {number}, but {source.name} is defined in the program that "
                    "runs (__main__), from which no other process can import it; move it into a "
                    "module of its own, or set loaders: 0"
                ],
            )
    try:
        return pickle.dumps(opening)
    except Exception as error:
        raise ConfigError(
            opening.job,
            [
                f"data.loaders: got {number}, but the settings of task, model and data cannot be "
                f"sent to another process ({type(error).__name__}: {error}); set loaders: 0"
            ],
        ) from error


def _is_read(split: Split | None) -> bool:
    return split is not None and not isinstance(split, ResidentSplit)


def _samples(number: int | None) -> str:
    return "samples in memory or none" if number is None else f"{counted(number, 'sample')} to read"
