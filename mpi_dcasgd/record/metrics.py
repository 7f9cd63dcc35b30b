"""metrics.jsonl: what happened when, one JSON object a line, for any tool to read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.record.appending import AppendedFile
from mpi_dcasgd.record.sinks import MetricSink

if TYPE_CHECKING:
    from mpi_dcasgd.record.run_folder import RunFolder

EVENTS = (
    *("start", "resume", "progress", "evaluation", "worker"),
    *("message", "warning", "fault", "restart", "end"),
)
"""The kinds of rows that a run has."""


def finite(value: Any) -> Any:
    """``value`` with every NaN and infinity in it as None, since JSON has no word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


class JsonLines(MetricSink):
    """JSON lines in metrics.jsonl, one event each, for any tool to read.

    Args:
        folder: The run's.
        offset: Bytes of the file that stay; what lies behind them is cut off. None for all.

    Raises:
        RunFolderError: The file cannot be written, or is shorter.
    """

    def __init__(self, folder: RunFolder, offset: int | None = None) -> None:
        self._file = AppendedFile(folder.metrics_jsonl, offset)

    def write(self, event: str, time_s: float, values: Mapping[str, Any]) -> None:
        line = {"event": event, "time_s": round(time_s, 6), **values}
        self._file.append(json.dumps(finite(line), allow_nan=False) + "\n")

    @property
    def offset(self) -> int:
        return self._file.offset

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the events of a file, oldest first; a last line that was cut short is left out.

    Raises:
        RunFolderError: The file cannot be read, or a line that is not the last is damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read: {error.strerror}") from error
    events: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict) and "event" in event:
            events.append(event)
        elif number < len(lines):
            raise RunFolderError(
                f"{path}: line {number} is not an event (a JSON object with the key 'event');"
                " the file was changed after the run"
            )
    return events


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Progress of a run, as far as its events tell.

    Attributes:
        begun: Whether anything was recorded.
        epoch: Epochs trained; None before the first record of them.
        result: The primary metric on the test split at the last evaluation; None before it, and if
            it was NaN or infinite.
        measures: The primary metric, its direction and its unit.
        missing: Workers that have died or hang, a few words each.
    """

    begun: bool
    epoch: float | None
    result: float | None
    measures: Measures = field(default_factory=Measures)
    missing: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The result in words, ``test error 4.17 %``; empty before there is one."""
        return self.measures.shown_on_test(self.result)

    @classmethod
    def of(cls, events: Iterable[Mapping[str, Any]]) -> RunProgress:
        """The progress that events tell of.

        Args:
            events: Oldest first.

        Example:
            >>> progress = RunProgress.of([{"event": "evaluation", "epoch": 2, "test_error": 0.1}])
            >>> progress.epoch, progress.shown
            (2, 'test error 10.00 %')
        """
        begun, epochs, results, measures = False, [], [], Measures()
        missing: tuple[str, ...] = ()
        for event in events:
            begun = True
            if "primary_metric" in event:  # of its start, or of one of its restarts
                measures, missing = Measures.recorded(event), ()
            if event.get("event") == "fault":
                missing = tuple(event.get("missing", ()))
            if isinstance(epoch := event.get("epoch"), (int, float)):
                epochs.append(epoch)
            if (name := f"test_{measures.primary}") in event:
                results.append(event[name])
        result = results[-1] if results else None
        return cls(begun, max(epochs, default=None), result, measures, missing)
