"""``mpi-dcasgd stability``: what delay does to the largest stable learning rate of a job's rule."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpi_dcasgd.cli.arguments import (
    add_overrides,
    count,
)

HELP = "largest stable learning rate by number of workers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("job", type=Path, metavar="JOB", help="job file")
    add_overrides(parser)
    parser.add_argument(
        "--workers",
        type=count,
        nargs="+",
        default=[1, 2, 4, 8, 16, 32],
        metavar="N",
        help="a line each (default: 1 2 4 8 16 32)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from mpi_dcasgd.runs.stability import stability

    return stability(args)
