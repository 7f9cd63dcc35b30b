"""``mpi-dcasgd report``: report on existing runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mpi_dcasgd.cli.arguments import finite, fraction

if TYPE_CHECKING:
    from mpi_dcasgd.reporting.write import Report

HELP = "report on existing runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="run folder, or a folder of run folders"
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="DIR", help="folder to write into"
    )
    targets = parser.add_mutually_exclusive_group()
    targets.add_argument(
        "--target-error",
        type=fraction,
        metavar="X",
        help="also report the time to this test error, a fraction of 1",
    )
    targets.add_argument(
        "--target",
        type=finite,
        metavar="X",
        help="also report the time until the task's primary metric is at X or better",
    )


def run(args: argparse.Namespace) -> int:
    """Write a report, and show its table even if there is nothing to draw plots with."""
    from mpi_dcasgd.reporting.write import ReportWithoutPlotsError
    from mpi_dcasgd.runs.report import report

    try:
        written = report(args.runs, args.out, target_error=args.target_error, target=args.target)
    except ReportWithoutPlotsError as error:
        print(error.report.table)
        raise
    show(written)
    return 0


def show(report: Report) -> None:
    """Print the table of a report and where its files are."""
    print(report.table)
    print(f"report: {report.markdown}")
    print(f"        {report.html}")
    for plot in report.plots:
        print(f"        {plot}")
