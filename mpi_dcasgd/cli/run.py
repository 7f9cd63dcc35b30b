"""``mpi-dcasgd run``: check a job, then start its ranks."""

from __future__ import annotations

import argparse
import sys

from mpi_dcasgd.cli.arguments import (
    add_job,
    add_mpirun,
    add_restarts,
    add_resume,
    add_run_dir,
    count,
)
from mpi_dcasgd.cli.train import show_job
from mpi_dcasgd.quick import importing_torch
from mpi_dcasgd.shell import shell_words

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
    add_restarts(parser)


def run(args: argparse.Namespace) -> int:
    """Start the ranks of a job, or only show what that would be."""
    from mpi_dcasgd.runs.launch import launch, plan_launch
    from mpi_dcasgd.runs.launch_plan import Launcher
    from mpi_dcasgd.tools.launch.restarts import restarts_wanted

    plan = plan_launch(
        args.job,
        args.ranks,
        words=args.overrides,
        run_dir=args.run_dir,
        resume=None if args.resume == "auto" else args.resume,
        overwrite=args.overwrite,
        launcher=Launcher(
            args.launcher,
            args.mpirun,
            tuple(shell_words(args.mpirun_args, "--mpirun-args")),
            args.fault_tolerant,
        ),
    )
    if args.dry_run:
        show_job(args, plan.ranks)
        print(f"\ncommand: {plan.command()}")
        return 0
    with importing_torch():
        import mpi_dcasgd.learning.outline  # noqa: F401  # the memory that ranks need, which is checked
    launched = launch(plan, restarts_wanted(args.restarts))
    if launched.complaint:
        print(launched.complaint, file=sys.stderr)
    return launched.status
