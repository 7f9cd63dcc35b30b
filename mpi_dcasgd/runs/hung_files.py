"""A file of a run that hangs: it is named, and a run that cannot go on without it ends."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.hangs import HangWatch
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.run_end import how_to_resume, record_failure

_REASON_S = 5.0
"""Seconds in which the reason is left in the run folder, which may be what hangs."""

_own_process = ContextVar("own_process", default=False)


@contextmanager
def own_process() -> Iterator[None]:
    """Have a run that cannot go on end this process, which is there for that run only."""
    before = _own_process.set(True)
    try:
        yield
    finally:
        _own_process.reset(before)


def watch_files(
    patience_s: float, folder: Callable[[], RunFolder | None], end_world: Callable[[], None] | None
) -> HangWatch:
    """Begin to look after the files of a run.

    Args:
        patience_s: Seconds without a byte after which a file is held to hang.
        folder: Tells the run's, once it is known.
        end_world: Ends all ranks; None where there is one process, which ends itself if it is
            there for the run (`own_process`). In a program of somebody else's the file is named,
            and waited for.
    """
    ends_itself = _own_process.get()  # here: the watch looks in a thread of its own

    def found(text: str, ends: bool) -> None:
        place = folder()
        if place is None or not ends or not (end_world or ends_itself):
            print(text, file=sys.stderr, flush=True)
            return
        error = RunFolderError(text)
        leaving = threading.Thread(target=record_failure, args=(place, error), daemon=True)
        leaving.start()
        leaving.join(_REASON_S)
        print(how_to_resume(f"{text}; the run ends", place), file=sys.stderr, flush=True)
        if end_world:
            end_world()
        os._exit(1)  # other ways out look at files

    return HangWatch(patience_s, found)
