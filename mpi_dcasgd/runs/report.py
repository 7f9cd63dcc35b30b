"""``mpi-dcasgd report``: compare runs that are there."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mpi_dcasgd.report.write import ReportWithoutPlotsError, write_report


def report(args: argparse.Namespace) -> int:
    """Write a report and print its table."""
    return show_report(args.runs, args.out, args.target_error)


def show_report(
    runs: Sequence[Path], out: Path, target_error: float | None, title: str = ""
) -> int:
    """Write a report, print its table and say where it is.

    Returns:
        0.

    Raises:
        ReportWithoutPlotsError: There is no matplotlib; the table was printed all the same.
    """
    try:
        written = write_report(runs, out, target_error, title=title)
    except ReportWithoutPlotsError as error:
        print(error.report.table)
        raise
    print(written.table)
    print(f"report: {written.markdown}")
    print(f"        {written.html}")
    for plot in written.plots:
        print(f"        {plot}")
    return 0
