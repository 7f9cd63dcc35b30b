"""Rows of finished runs, kept in a file, so that a study that was stopped goes on where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from mpi_dcasgd.errors import UserError

_FILE = "rows.jsonl"


class Kept:
    """Rows of a study by their keys.

    Args:
        folder: Where they are kept; the study may use it for its runs.
        show: Where a line about each row is shown; None for nowhere.

    Attributes:
        folder: Of the study.
        show: As given.

    Raises:
        UserError: The file of rows is damaged.

    Example:
        A run that is made once, whoever asks::

            kept = Kept(Path("runs/results/my-study"))
            row = kept.row({"algorithm": "asgd", "seed": 0}, lambda: {"gap": measure("asgd", 0)})
    """

    def __init__(self, folder: Path, show: TextIO | None = None) -> None:
        self.folder = folder
        self.show = show
        self._file = folder / _FILE
        self._rows: dict[str, dict[str, Any]] = {}
        if self._file.exists():
            for number, line in enumerate(self._file.read_text().splitlines(), start=1):
                try:
                    key, row = json.loads(line)
                except ValueError as error:
                    raise UserError(
                        f"{self._file}, line {number}: {error}; remove the line to repeat its run"
                    ) from error
                self._rows[key] = row

    def row(self, key: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Return the row of a key, made now if it is not there yet.

        Args:
            key: What tells the run apart; part of the row.
            make: Makes the run and returns the rest of the row, plain values.

        Returns:
            Key and values, and ``seconds``: the time that making it took.
        """
        name = json.dumps(key, sort_keys=True)
        if name not in self._rows:
            began = time.monotonic()
            made = {**key, **make()}
            made.setdefault("seconds", round(time.monotonic() - began, 1))
            # Through JSON at once: a row is the same whether it was made now or read.
            self._rows[name] = json.loads(json.dumps(made, allow_nan=False))
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._file.open("a") as file:
                file.write(json.dumps([name, self._rows[name]]) + "\n")
            if self.show is not None:
                print(f"  {name}: {made['seconds']} s", file=self.show, flush=True)
        return dict(self._rows[name])
