"""metrics.jsonl: what happened when, one JSON object a line, for any tool to read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpi_dcasgd.errors import RunFolderError


def finite(value: Any) -> Any:
    """``value`` with every NaN and infinity in it as None, since JSON has no word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


class MetricsWriter:
    """Appends events; every line is handed to the system as soon as it is written.

    Raises:
        RunFolderError: The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be written: {error.strerror}") from error

    def write(self, event: str, time_s: float, **values: Any) -> None:
        """One line: ``event``, ``time_s`` (seconds since training began) and ``values``."""
        line = {"event": event, "time_s": round(time_s, 6), **values}
        try:
            self._file.write(json.dumps(finite(line), allow_nan=False) + "\n")
        except OSError as error:
            raise RunFolderError(f"{self._path}: cannot be written: {error.strerror}") from error

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All events of a file, oldest first; a last line that was cut short is left out.

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
