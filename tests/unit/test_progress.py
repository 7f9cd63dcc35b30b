"""Progress: a bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import fcntl
import io
import math
import os
import struct
import termios
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import TextIO

import pytest

from mpi_dcasgd.record.progress import (
    BarProgress,
    LineProgress,
    NoProgress,
    Status,
    format_duration,
    format_line,
    make_progress,
)

STATUS = Status(
    epoch=3.2,
    epochs=20,
    samples=4_200,
    total_samples=10_000,
    samples_per_s=1_234.4,
    loss=0.2312,
    result="test error 5.3 %",
    staleness_mean=2.91,
    staleness_max=7,
    dropped=0,
    nonfinite=0,
    eta_s=80.0,
)


@pytest.fixture
def terminal() -> Iterator[Callable[[int], TextIO]]:
    """Opens pseudo-terminals of the given width."""
    with ExitStack() as stack:

        def make(columns: int) -> TextIO:
            ours, theirs = os.openpty()
            stack.callback(os.close, ours)
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
            return stack.enter_context(open(theirs, "w"))

        yield make


def test_a_line_says_all_there_is() -> None:
    assert format_line(STATUS) == (
        "epoch 3.2/20   42 %  1,234 samples/s  loss 0.2312  test error 5.3 %  eta 1m20s"
        "  staleness 2.9 (max 7)"
    )


def test_a_line_leaves_out_what_is_not_known_yet_or_does_not_apply() -> None:
    early = replace(STATUS, loss=None, result="", staleness_max=0, eta_s=None)
    assert format_line(early) == "epoch 3.2/20   42 %  1,234 samples/s"
    assert "eta" not in format_line(replace(STATUS, eta_s=math.inf))


def test_trouble_is_shown() -> None:
    line = format_line(replace(STATUS, nonfinite=3, dropped=12_000))
    assert "3 not finite  12,000 dropped" in line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0s"),
        (59.6, "1m00s"),
        (80, "1m20s"),
        (3_599.7, "1h00m"),
        (7_500, "2h05m"),
        (3 * 86_400 + 4 * 3_600, "3d04h"),
    ],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_auto_looks_at_the_stream_and_at_what_the_launcher_said(
    terminal: Callable[[int], TextIO],
) -> None:
    def kind(stream: TextIO, environ: dict[str, str]) -> type:
        return type(make_progress("auto", stream, line_every_s=1, environ=environ))

    assert kind(io.StringIO(), {}) is LineProgress
    assert kind(io.StringIO(), {"MPI_DCASGD_TTY": "1"}) is BarProgress
    assert kind(terminal(80), {}) is BarProgress
    assert kind(terminal(80), {"MPI_DCASGD_TTY": "0"}) is LineProgress
    # What Open MPI gives a rank although mpirun writes to a file.
    assert kind(terminal(0), {}) is LineProgress
    assert kind(terminal(0), {"MPI_DCASGD_TTY": "1"}) is BarProgress


def test_a_bar_is_as_wide_as_the_terminal_or_as_the_launcher_said(
    terminal: Callable[[int], TextIO],
) -> None:
    def width(stream: TextIO, environ: dict[str, str]) -> int:
        progress = make_progress("bar", stream, line_every_s=1, environ=environ)
        assert isinstance(progress, BarProgress)
        return progress.columns

    assert width(terminal(71), {"COLUMNS": "90"}) == 71
    assert width(terminal(0), {"COLUMNS": "90"}) == 90
    assert width(terminal(0), {"COLUMNS": "wide"}) == 100


def test_a_bar_is_seen_on_a_terminal_without_a_size() -> None:
    ours, theirs = os.openpty()
    with open(ours, "rb", buffering=0) as reader, open(theirs, "w") as stream:
        bar = BarProgress(stream, 80)
        bar.show(STATUS)
        shown = reader.read(200)
        bar.close()
    assert b"epoch 3.2/20" in shown


def test_off_shows_nothing_and_wants_nothing() -> None:
    progress = make_progress("off", io.StringIO(), line_every_s=1, environ={})
    assert isinstance(progress, NoProgress)
    assert progress.every_s == math.inf


def test_lines_are_whole_lines() -> None:
    stream = io.StringIO()
    progress = LineProgress(stream, 1.0)
    progress.show(STATUS)
    progress.line("done")
    assert stream.getvalue() == format_line(STATUS) + "\ndone\n"


def test_lines_that_nobody_can_read_are_left_out() -> None:
    reader, writer = os.pipe()
    with open(writer, "w") as stream:
        progress = LineProgress(stream, 1.0)
        progress.line("read")
        assert os.read(reader, 100) == b"read\n"
        os.close(reader)
        progress.line("lost")
        progress.show(STATUS)
        # What could not be written would be tried once more when the stream is closed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_bar_fits_its_terminal_and_drops_the_least_important(columns: int) -> None:
    stream = io.StringIO()
    bar = BarProgress(stream, columns)
    bar.show(STATUS)
    bar.show(replace(STATUS, samples=10_000, epoch=20.0))
    bar.close()
    shown = [piece.strip() for piece in stream.getvalue().split("\r") if piece.strip()]
    assert all(len(piece) < columns for piece in shown)
    assert shown[0].startswith("epoch 3.2/20  42 % ")
    assert "1,234 samples/s" in shown[0]
    assert ("staleness 2.9 (max 7)" in shown[0]) == (columns == 120)
    assert shown[-1].startswith("epoch 20.0/20 100 % ")


def test_a_message_does_not_break_the_bar() -> None:
    stream = io.StringIO()
    bar = BarProgress(stream, 80)
    bar.line("before the bar")
    bar.show(STATUS)
    bar.line("amid the bar")
    bar.close()
    assert stream.getvalue().startswith("before the bar\n")
    assert "\ramid the bar\n" in stream.getvalue()
