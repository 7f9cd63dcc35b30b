"""``mpi-dcasgd report``: compare runs that are there."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpi_dcasgd.cli.arguments import (
    fraction,
)

HELP = "compare runs that are there"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="run folder, or a folder of run folders"
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="DIR", help="folder to write into"
    )
    parser.add_argument(
        "--target-error",
        type=fraction,
        metavar="X",
        help="also report how soon this test error was reached, as a fraction of 1",
    )


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from mpi_dcasgd.runs.report import report

    return report(args)
