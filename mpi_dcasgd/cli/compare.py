"""``mpi-dcasgd compare``: run a study, or what is left of it, and report."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpi_dcasgd.cli.arguments import (
    add_dry_run,
    add_mpirun,
    part,
)

HELP = "run a study: a grid of algorithms, workers and seeds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("study", type=Path, metavar="STUDY", help="study file")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="DIR", help="folder of its runs (default: runs/<study>)"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="only these runs; * and ? stand for any letters"
    )
    parser.add_argument("--rerun", action="store_true", help="run again what is finished, too")
    parser.add_argument(
        "--part",
        type=part,
        metavar="I/N",
        help="only the I-th of N parts of the runs, counted from 0: an element of a job array",
    )
    report = parser.add_mutually_exclusive_group()
    report.add_argument(
        "--no-report",
        action="store_true",
        help="write no report, and let others work on other runs of the study at the same time",
    )
    report.add_argument(
        "--report-only", action="store_true", help="report the runs that are there; start none"
    )
    add_mpirun(parser)
    add_dry_run(parser, "show the runs and which of them are finished; start nothing")


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from mpi_dcasgd.runs.compare import compare_command

    return compare_command(args)
