"""``mpi-dcasgd train``: one process of a run, whichever rank it turns out to be."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import suppress
from functools import partial

from mpi_dcasgd import STARTED
from mpi_dcasgd.cli.arguments import (
    add_job,
    add_resume,
    add_run_dir,
    count,
)
from mpi_dcasgd.drivers import start_guard
from mpi_dcasgd.drivers.fault_settings import setup_patience_s
from mpi_dcasgd.drivers.world import Launch
from mpi_dcasgd.errors import StartError, UserError
from mpi_dcasgd.quick import importing_torch

_RANK_0_S = 3.0

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
    launch = Launch.of()
    if launch.size > 1:
        # First, for all imports take seconds.
        start_guard.begin_guard(launch.rank, partial(_setup_patience_s, args))
    try:
        return _train(args)
    finally:
        start_guard.ends_by_itself()


def _setup_patience_s(args: argparse.Namespace) -> float:
    """The job's patience during start-up, found without loading anything heavy."""
    wanted: float | str = "auto"
    with suppress(Exception):  # what is wrong with the job, the rank tells
        from mpi_dcasgd.config.load import parse_overrides, read_mapping, with_overrides

        pairs, _ = parse_overrides(args.overrides)
        job, _ = with_overrides(read_mapping(args.job), pairs)
        wanted = job["faults"]["setup_patience"]
    return setup_patience_s(wanted)


def _train(args: argparse.Namespace) -> int:
    """Train as this process's rank, from its first import on."""
    with importing_torch():
        from mpi_dcasgd.drivers.farewell import end_broken_world, world_is_broken
        from mpi_dcasgd.drivers.orphan import launcher
        from mpi_dcasgd.drivers.signals import StopFlag, leave, outlives_deaths
        from mpi_dcasgd.runs.hung_files import own_process
        from mpi_dcasgd.runs.train import train

    stop = StopFlag()
    stop.listen(insist=True)  # to the end of the process: nothing is to cut MPI's own end short
    if Launch.of().launcher:
        launcher.end_with_launcher()
    try:
        with own_process():
            made = train(
                args.job,
                run_dir=args.run_dir,
                resume=args.resume or "auto",
                overwrite=args.overwrite,
                show=sys.stdout,
                stop=stop,
                words=args.overrides,
                argv=args.argv,
                started=STARTED,
            )
    except (UserError, StartError) as error:
        # All ranks have the same error; one of them is enough to say it.
        if _rank() > 0:
            return error.exit_status
        if _rank() < 0:
            _let_rank_0_speak()
        raise
    status = 128 + made.stopped_by if made.stopped_by else 0
    if _rank() >= 0 and world_is_broken():
        end_broken_world(status)
    if _rank() >= 0 and (outlives_deaths() or launcher.gone):
        leave(status)
    return status


def show_job(args: argparse.Namespace, ranks: int | None) -> None:
    """Print the resolved job, then its ranks and its memory."""
    from mpi_dcasgd.config.load import job_as_text
    from mpi_dcasgd.runs.jobs import load_job

    job = load_job(args.job, words=args.overrides)
    print(job_as_text(job), flush=True)
    from mpi_dcasgd.runs.dry_run import describe_needs  # loads PyTorch

    print(describe_needs(job, ranks))


def _show(args: argparse.Namespace) -> int:
    launch = Launch.of()
    if launch.rank == 0:
        show_job(args, launch.size if launch.launcher else args.ranks)
    return 0


def _let_rank_0_speak() -> None:
    """Wait, on other ranks of a world without MPI, for the launcher to end this one.

    It does so when rank 0, which has very likely the same to say, has said it and ended. Otherwise
    only this host's MPI is broken, and this rank speaks.
    """
    if Launch.of().rank > 0:
        time.sleep(_RANK_0_S)


def _rank() -> int:
    """This process's rank, or -1 where MPI was not started."""
    mpi = sys.modules.get("mpi4py.MPI")
    rank: int = -1 if mpi is None else mpi.COMM_WORLD.rank
    return rank
