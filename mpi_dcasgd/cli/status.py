"""``mpi-dcasgd status``: a table of runs and of how far they are."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "how far runs are: in folders, and in SLURM's queue"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "folders",
        type=Path,
        nargs="*",
        metavar="FOLDER",
        help="run folder, or the folder of a study's runs (default: all in runs/)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from mpi_dcasgd.runs.status import status

    return status(args)
