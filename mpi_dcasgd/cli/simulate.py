"""``mpi-dcasgd simulate``: a run on a cluster that is only described, in virtual time."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpi_dcasgd.cli.arguments import (
    add_overrides,
    add_run_dir,
    count,
)

HELP = "simulate a job on a described cluster"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("job", type=Path, metavar="JOB", help="job file")
    add_overrides(parser)
    add_run_dir(parser)
    parser.add_argument(
        "--checkpoint-every",
        type=count,
        metavar="EPOCHS",
        help="write a checkpoint so often, and when a signal stops the simulation",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the checkpoint in --run-dir, if there is one; same job, same words",
    )
    parser.add_argument(
        "--timing-only",
        action="store_true",
        help="only throughput, staleness and utilisation; compute no gradient",
    )
    parser.add_argument(
        "--updates",
        type=count,
        metavar="N",
        help="with --timing-only: updates to make (default: those of the job)",
    )
    parser.add_argument("--json", action="store_true", help="with --timing-only: print JSON")


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from mpi_dcasgd.runs.simulate import simulate

    return simulate(args)
