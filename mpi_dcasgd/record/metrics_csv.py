"""metrics.csv: the numbers of all events in one table, for spreadsheets and pandas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mpi_dcasgd.record.appending import AppendedFile
from mpi_dcasgd.record.sinks import MetricSink

if TYPE_CHECKING:
    from mpi_dcasgd.record.run_folder import RunFolder

HEADER = ("event", "time_s", "name", "value")


class CsvLines(MetricSink):
    """Table of numbers in metrics.csv, one a line: event, time_s, name, value.

    Texts are left out; those of a list or a mapping have their place in the name (``a.b``).
    ``pandas.read_csv(...).pivot_table("value", ["event", "time_s"], "name")`` has a column each.
    """

    def __init__(self, folder: RunFolder, offset: int | None = None) -> None:
        self._file = AppendedFile(folder.metrics_csv, offset)
        if self._file.offset == 0:
            self._file.append(_line(HEADER))

    def write(self, event: str, time_s: float, values: Mapping[str, Any]) -> None:
        rows = ((event, f"{time_s:.6f}", name, value) for name, value in _numbers("", values))
        self._file.append("".join(map(_line, rows)))

    @property
    def offset(self) -> int:
        return self._file.offset

    def close(self) -> None:
        self._file.close()


def _numbers(prefix: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, bool):
        yield prefix, int(value)
    elif isinstance(value, (int, float)):
        yield prefix, value
    elif isinstance(value, (Mapping, list, tuple)):
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in pairs:
            yield from _numbers(f"{prefix}.{key}" if prefix else str(key), inner)


def _line(row: tuple[Any, ...]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()
