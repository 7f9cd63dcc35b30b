"""``mpi-dcasgd train``: one process of a run, up to the point where the work begins."""

from __future__ import annotations

import argparse

from mpi_dcasgd.cli.arguments import (
    add_job,
    add_resume,
    add_run_dir,
    count,
)
from mpi_dcasgd.errors import UserError

HELP = "train as one rank of an MPI world, or alone"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_job(parser)
    add_run_dir(parser)
    add_resume(parser)
    parser.add_argument(
        "-n",
        "--ranks",
        type=count,
        metavar="N",
        help="with --dry-run: ranks to plan for, where no launcher says how many there are",
    )


def run(args: argparse.Namespace) -> int:
    """Train as this process's rank, or only show what that would be."""
    if args.dry_run:
        return _show(args)
    # First, because start-up is timed from its first line on.
    from mpi_dcasgd.config.load import load_job
    from mpi_dcasgd.runs.train import train

    try:
        job = load_job(args.job, args.overrides)
    except UserError as error:
        return _fail_together(error)
    return train(
        job,
        run_dir=args.run_dir,
        argv=args.argv,
        overwrite=args.overwrite,
        resume=args.resume,
    )


def _show(args: argparse.Namespace) -> int:
    from mpi_dcasgd.config.load import load_job
    from mpi_dcasgd.drivers.world import Launch
    from mpi_dcasgd.runs.dry_run import show_job

    launch = Launch.of()
    if launch.rank > 0:
        return 0
    job = load_job(args.job, args.overrides)
    show_job(job, launch.size if launch.launcher else args.ranks)
    return 0


def _fail_together(error: UserError) -> int:
    """End a world none of whose ranks can read the job with one message, not with one of each.

    A rank that simply exits has mpirun kill the others, the one that was to speak among them.
    """
    from mpi_dcasgd.drivers.startup import together
    from mpi_dcasgd.drivers.world import Launch

    if Launch.of().size == 1:
        raise error
    try:
        from mpi4py import MPI
    except Exception:  # what a missing or broken MPI raises is not what is wrong here
        raise error from None

    def fail() -> None:
        raise error

    try:
        together(MPI.COMM_WORLD, fail)
    except UserError:
        if MPI.COMM_WORLD.rank == 0:
            raise
    return error.exit_status
