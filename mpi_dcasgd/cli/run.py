"""``mpi-dcasgd run``: check a job, then start its ranks."""

from __future__ import annotations

import argparse

from mpi_dcasgd.cli.arguments import (
    add_job,
    add_mpirun,
    add_resume,
    add_run_dir,
    count,
)

HELP = "start the world of a job with mpirun or srun"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_job(parser)
    parser.add_argument(
        "-n",
        "--ranks",
        type=count,
        metavar="N",
        help="processes to start, the server included (default in a SLURM allocation: its tasks)",
    )
    add_run_dir(parser)
    add_resume(parser)
    add_mpirun(parser)
    parser.add_argument(
        "--fault-tolerant",
        action="store_true",
        help="let the run outlive the death of a worker (Open MPI built with ULFM)",
    )


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from mpi_dcasgd.runs.launch import run_job

    return run_job(args)
