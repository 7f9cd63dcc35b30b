"""``mpi-dcasgd conformance``: hold an update rule against the laws of all rules."""

from __future__ import annotations

import argparse

HELP = "hold an update rule against the laws of all rules"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="a named algorithm, or package.module:Name of a part, a rule or a server class",
    )


def run(args: argparse.Namespace) -> int:
    """Print which laws hold; 1 if one fails."""
    from mpi_dcasgd.tools.conformance import run as check_laws

    return check_laws(args.target)
