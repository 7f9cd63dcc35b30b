"""``mpi-dcasgd conformance``: check an update rule against the laws that every rule keeps."""

from __future__ import annotations

import argparse

from mpi_dcasgd.quick import importing_torch

HELP = "check an update rule against the laws that every rule keeps"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="a named algorithm, or package.module:Name of a part, a rule or a server class",
    )
    parser.add_argument(
        "--reference",
        metavar="FORMULA",
        help="package.module:name of a NumPy function to compare it with (docs/own-rule.md)",
    )


def run(args: argparse.Namespace) -> int:
    """Print which laws hold; 1 if one fails."""
    with importing_torch():
        from mpi_dcasgd.tools.conformance import run as check_laws

    return check_laws(args.target, args.reference)
