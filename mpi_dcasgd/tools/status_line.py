"""One line for each of many runs, kept up to date on a terminal while the run goes on."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.metrics import read_metrics
from mpi_dcasgd.record.run_folder import RunFolder

EVERY_S = 1.0


class StatusLine:
    """The line of one run.

    Args:
        stream: Where it is written; in place, if that is a terminal.
        place: What it begins with.
        folder: Where the run tells how far it has come.
    """

    def __init__(self, stream: TextIO, place: str, folder: RunFolder) -> None:
        self._stream = stream
        self._place = place
        self._folder = folder
        self._terminal = stream.isatty()

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
            text = f"{self._place}   {progress(self._events())}  {time.monotonic() - started:.0f} s"
            columns = shutil.get_terminal_size().columns
            self._write(text[: columns - 1])
            if done.wait(EVERY_S):
                return

    def _events(self) -> list[dict[str, Any]]:
        try:
            return read_metrics(self._folder.metrics_jsonl)
        except RunFolderError:
            return []  # not there yet

    def _write(self, text: str) -> None:
        # To the start of the line, and away with what a longer text left behind.
        self._stream.write(f"\r\x1b[K{text}" if self._terminal else text)
        self._stream.flush()


def progress(events: list[dict[str, Any]]) -> str:
    """How far a run has come, from its metrics: ``epoch 3.2  test error 4.17 %``."""
    if not events:
        return "starting"
    words = []
    epochs = [event["epoch"] for event in events if isinstance(event.get("epoch"), (int, float))]
    if epochs:
        words.append(f"epoch {max(epochs):.1f}")
    errors = [event["test_error"] for event in events if event.get("test_error") is not None]
    if errors:
        words.append(f"test error {100 * errors[-1]:.2f} %")
    return "  ".join(words) or "running"
