"""Compare runs that are there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mpi_dcasgd.learning.settings import Finite
from mpi_dcasgd.reporting.write import Report, write_report
from mpi_dcasgd.runs.arguments import check_arguments

Place = Path | str


def report(
    runs: Place | Sequence[Place],
    out: Place,
    *,
    target_error: Annotated[float, Field(ge=0, le=1)] | None = None,
    target: Finite | None = None,
    title: str = "",
) -> Report:
    """Write a report of runs: Markdown, HTML and plots.

    Args:
        runs: Run folders, or folders of run folders; one, or several.
        out: The folder to write into; made if need be.
        target_error: Also report how soon this test error, in [0, 1], was reached; of runs with
            another primary metric nothing.
        target: Also report how soon the primary metric of the runs' task was at this value or
            better; a fraction of 1 where it is shown in per cent.
        title: Title of the report; by default the name of the runs' job.

    Returns:
        The files that were written, and the table as text.

    Raises:
        ConfigError: The target is none that the primary metric can be at, say 95 for 95 %.
        RunFolderError: A path is no run, or ``out`` cannot be written.
        ReportWithoutPlotsError: There is no matplotlib; all but the plots was written, and the
            exception has the report.

    Example:
        All runs of a folder::

            print(report("runs/digits", "runs/digits/report", target_error=0.05).table)
    """
    if isinstance(runs, Iterator):  # Path.glob gives one
        runs = list(runs)
    check_arguments(report, locals())
    from mpi_dcasgd.config.load import idle_in, with_defaults  # loads all settings

    paths = [Path(path) for path in ([runs] if isinstance(runs, (os.PathLike, str)) else runs)]
    return write_report(
        paths,
        Path(out),
        target_error,
        target=target,
        title=title,
        read_stored=with_defaults,
        find_idle=idle_in,
        strict=True,
    )
