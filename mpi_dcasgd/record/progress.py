"""Progress of a run for people: a live bar on a terminal, plain lines in a log file."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TextIO

from tqdm import tqdm

from mpi_dcasgd.record.shown import ShownStream

Writable = TextIO | ShownStream
Mode = Literal["auto", "bar", "lines", "off"]

TTY_VARIABLE = "MPI_DCASGD_TTY"
"""Set by whoever starts mpirun to 1 on a terminal and to 0 elsewhere: the ranks cannot know.

Together with it, ``COLUMNS`` says how wide the terminal is.
"""

_BAR_EVERY_S = 0.25
_COLUMNS = 100


@dataclass(frozen=True, slots=True)
class Status:
    """Progress of a run.

    Attributes:
        epoch, epochs: Passes over the training data, done and in all.
        samples, total_samples: Training samples applied, and in all.
        samples_per_s: At present.
        loss: Mean training loss at present, or None before the first update.
        result: Of the last evaluation, in words (``test error 4.2 %``); empty before it.
        staleness_mean, staleness_max: In updates; at present, and so far.
        dropped, nonfinite: Gradients refused so far.
        eta_s: Seconds to go, or None if that cannot be told.
    """

    epoch: float
    epochs: int
    samples: int
    total_samples: int
    samples_per_s: float
    loss: float | None
    result: str
    staleness_mean: float
    staleness_max: int
    dropped: int
    nonfinite: int
    eta_s: float | None


def format_duration(seconds: float) -> str:
    """``47s``, ``1m20s``, ``2h05m``, ``3d04h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    minutes = whole // 60
    if minutes < 24 * 60:
        return f"{minutes // 60}h{minutes % 60:02d}m"
    return f"{minutes // (24 * 60)}d{minutes // 60 % 24:02d}h"


def status_parts(status: Status) -> list[str]:
    """Return the parts of a progress line behind the epoch, most important first."""
    parts = [f"{status.samples_per_s:,.0f} samples/s"]
    if status.loss is not None:
        parts.append(f"loss {status.loss:.4g}")
    if status.result:
        parts.append(status.result)
    if status.eta_s is not None and math.isfinite(status.eta_s):
        parts.append(f"eta {format_duration(status.eta_s)}")
    if status.staleness_max:
        parts.append(f"staleness {status.staleness_mean:.1f} (max {status.staleness_max})")
    if status.nonfinite:
        parts.append(f"{status.nonfinite:,} not finite")
    if status.dropped:
        parts.append(f"{status.dropped:,} dropped")
    return parts


def format_line(status: Status) -> str:
    """One plain line."""
    percent = 100 * status.samples / max(1, status.total_samples)
    head = f"epoch {status.epoch:.1f}/{status.epochs}  {percent:3.0f} %"
    return "  ".join([head, *status_parts(status)])


class Progress(Protocol):
    """Somewhere to show how far a run is."""

    every_s: float
    """How often ``show`` is worth calling."""

    def show(self, status: Status) -> None: ...

    def line(self, text: str) -> None:
        """A line that stays."""

    def close(self) -> None: ...


class NoProgress:
    """Shows nothing, not even messages: they are in the log."""

    every_s = math.inf

    def show(self, status: Status) -> None:
        pass

    def line(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


class LineProgress:
    """A plain line per interval, for log files.

    Args:
        stream: Where to.
        every_s: Seconds between lines.
    """

    def __init__(self, stream: Writable, every_s: float) -> None:
        self.every_s = every_s
        self._stream = stream if isinstance(stream, ShownStream) else ShownStream(stream)

    def show(self, status: Status) -> None:
        self.line(format_line(status))

    def line(self, text: str) -> None:
        # Flushed, since batch systems and mpirun buffer what they forward.
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        pass


class BarProgress:
    """A live bar in the last line of a terminal.

    Args:
        stream: The terminal, or what mpirun forwards to it.
        columns: Its width.
    """

    every_s = _BAR_EVERY_S
    _BAR_COLUMNS = 16

    def __init__(self, stream: Writable, columns: int) -> None:
        self._stream = stream if isinstance(stream, ShownStream) else ShownStream(stream)
        self.columns = columns
        self._bar: tqdm[Any] | None = None

    def show(self, status: Status) -> None:
        head = f"epoch {status.epoch:.1f}/{status.epochs}"
        room = self.columns - len(head) - self._BAR_COLUMNS - len("  100 %  ") - 1
        # tqdm would put a comma before a postfix; its "unit" is printed as it is.
        tail = _fit(status_parts(status), room)
        done = min(status.samples, status.total_samples)
        if self._bar is None:
            self._bar = tqdm(
                desc=head,
                initial=done,
                total=status.total_samples,
                unit=tail,
                file=self._stream,
                disable=False,  # we decide, not tqdm: the stream may be a pipe to a terminal
                ncols=self.columns,
                nrows=24,  # a pseudo-terminal without a size would have tqdm print nothing
                bar_format=f"{{desc}} {{percentage:3.0f}} % {{bar:{self._BAR_COLUMNS}}} {{unit}}",
            )
            return
        self._bar.set_description_str(head, refresh=False)
        self._bar.unit = tail
        self._bar.n = done
        self._bar.refresh()

    def line(self, text: str) -> None:
        if self._bar is None:
            print(text, file=self._stream, flush=True)
        else:
            self._bar.write(text, file=self._stream)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def make_progress(
    mode: Mode,
    stream: TextIO | None,
    *,
    line_every_s: float,
    environ: Mapping[str, str] = os.environ,
    on_failure: Callable[[str], None] = lambda text: None,
) -> Progress:
    """The kind of progress that a job asks for.

    Where nobody reads it any more (the terminal was closed, a pipe ended, a disk is full) it falls
    silent, and the run continues: its log and metrics hold the same.

    Args:
        mode: The job's; ``auto`` is a bar on a terminal and lines anywhere else.
        stream: Where it goes; None for nowhere.
        line_every_s: Seconds between plain lines.
        environ: The environment, for ``MPI_DCASGD_TTY`` and ``COLUMNS``.
        on_failure: Told once when nothing can be shown any more.
    """
    if stream is None:
        return NoProgress()
    width = terminal_columns(stream)
    if mode == "auto":
        told = environ.get(TTY_VARIABLE)
        mode = "bar" if told == "1" or (told is None and width) else "lines"
    if mode == "off":
        return NoProgress()
    if mode == "lines":
        return LineProgress(ShownStream(stream, on_failure), line_every_s)
    said = environ.get("COLUMNS", "")
    columns = width or (int(said) if said.isdecimal() else 0) or _COLUMNS
    return BarProgress(ShownStream(stream, on_failure), columns)


def terminal_columns(stream: TextIO) -> int:
    """The width of the terminal that ``stream`` is, or 0 if it is none.

    Open MPI gives its ranks pseudo-terminals for their output, wherever its own goes; what tells
    them from a person's terminal is that they have no size.
    """
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError, AttributeError):
        return 0


def _fit(parts: list[str], room: int) -> str:
    """Join as many of ``parts`` as fit, from the first on."""
    text = ""
    for part in parts:
        longer = f"{text}  {part}" if text else part
        if len(longer) > room:
            break
        text = longer
    return text
