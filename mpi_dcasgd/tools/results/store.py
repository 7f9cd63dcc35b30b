"""A study's numbers as a file: small, sorted, a run a line, with how they came about."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mpi_dcasgd
from mpi_dcasgd.errors import UserError
from mpi_dcasgd.record.atomic import write_atomic
from mpi_dcasgd.record.environment import cpu_model, package_versions
from mpi_dcasgd.tools.results.studies import Row

_PACKAGES = ("torch", "numpy", "mpi4py", "horovod")


@dataclass(frozen=True)
class Results:
    """Numbers of a study.

    Attributes:
        head: How they came about: command, date, hardware, versions, seconds, form.
        rows: One for each run.
    """

    head: dict[str, Any]
    rows: list[Row]


def results_of(name: str, rows: Sequence[Row], *, short: bool) -> Results:
    """Put rows together with what made them: this machine, these versions, now.

    Args:
        name: The study's.
        rows: Of its runs; what each took is in ``seconds``.
        short: They are those of the short form.
    """
    versions = {k: v for k, v in package_versions().items() if k in _PACKAGES}
    command = f"python -m mpi_dcasgd.tools.results run {name}"
    return Results(
        {
            "study": name,
            "form": "short" if short else "full",
            "command": f"{command} --short" if short else command,
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "hardware": f"{os.cpu_count()} cores of {cpu_model()}",
            "versions": {
                "mpi_dcasgd": mpi_dcasgd.__version__,
                "python": platform.python_version(),
                **versions,
            },
            "seconds": round(sum(row.get("seconds", 0) for row in rows)),
        },
        list(rows),
    )


def write_results(results: Results, file: Path) -> None:
    """Write numbers so that a change of one run changes one line."""
    head = {key: json.dumps(results.head[key], sort_keys=True) for key in sorted(results.head)}
    lines = [f' "{key}": {value},' for key, value in head.items()]
    rows = ",\n".join(f"  {json.dumps(row, sort_keys=True)}" for row in results.rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, "\n".join(["{", *lines, ' "runs": [', rows, " ]", "}", ""]).encode())


def read_results(file: Path) -> Results:
    """Read what ``write_results`` wrote.

    Raises:
        UserError: There is no such file, or it is damaged.
    """
    try:
        found = json.loads(file.read_text())
        return Results({k: v for k, v in found.items() if k != "runs"}, found["runs"])
    except FileNotFoundError:
        raise UserError(f"{file}: is not there; run the study first") from None
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{file}: damaged ({error}); run the study again") from error
