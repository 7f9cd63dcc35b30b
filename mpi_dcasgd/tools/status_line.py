"""One line for each of many runs, kept up to date on a terminal during the run."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from mpi_dcasgd.record.metrics import RunProgress
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.shown import ShownStream

EVERY_S = 1.0


class StatusLine:
    """The line of one run.

    Args:
        stream: Where it is written, in place if that is a terminal; None for nowhere. One that
            fails ends nothing.
        place: Beginning of the line.
        folder: The run folder.
    """

    def __init__(self, stream: TextIO | ShownStream | None, place: str, folder: RunFolder) -> None:
        self._stream = ShownStream.of(stream)
        self._place = place
        self._folder = folder
        self._terminal = self._stream is not None and self._stream.isatty()

    def note(self, text: str) -> None:
        """Something to know about the run, on a line of its own."""
        self._write(f"{'':>8}{text}\n")

    def finish(self, text: str) -> None:
        """The last word on the run."""
        self._write(f"{self._place}   {text}\n")

    @contextmanager
    def live(self) -> Iterator[None]:
        """Within it the line follows the run, on a terminal."""
        if not self._terminal:
            yield
            return
        done = threading.Event()
        thread = threading.Thread(target=self._follow, args=(done,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _follow(self, done: threading.Event) -> None:
        started = time.monotonic()
        while True:
            words = progress_text(self._folder.progress())
            text = f"{self._place}   {words}  {time.monotonic() - started:.0f} s"
            columns = shutil.get_terminal_size().columns
            self._write(text[: columns - 1])
            if done.wait(EVERY_S):
                return

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        # To the start of the line, and away with what a longer text left behind.
        self._stream.write(f"\r\x1b[K{text}" if self._terminal else text)
        self._stream.flush()


def progress_text(progress: RunProgress) -> str:
    """The progress of a run in a few words: ``epoch 3.2  test error 4.17 %``."""
    if not progress.begun:
        return "starting"
    words = []
    if progress.epoch is not None:
        words.append(f"epoch {progress.epoch:.1f}")
    if progress.shown:
        words.append(progress.shown)
    return "  ".join(words) or "running"
