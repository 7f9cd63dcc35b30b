"""``mpi-dcasgd train`` and ``replay``, up to the point where the work begins."""

from __future__ import annotations

import argparse

from mpi_dcasgd.errors import ConfigError, UserError


def start(args: argparse.Namespace) -> int:
    """Train as this process's rank, or only show what that would be."""
    if args.dry_run:
        return _show(args)
    # First, because start-up is timed from its first line on.
    from mpi_dcasgd.cli.train import train
    from mpi_dcasgd.config.load import load_job

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


def replay(args: argparse.Namespace) -> int:
    """Compute a run again, as it was or with changes."""
    from mpi_dcasgd.cli.replay import replay_exactly, replay_under

    if args.overrides:
        return replay_under(args.run, args.overrides, args.run_dir, args.argv)
    if args.run_dir is not None:
        raise ConfigError(
            "command line",
            ["--run-dir: only with key=value words; computing a run again writes nothing"],
        )
    return replay_exactly(args.run)


def _show(args: argparse.Namespace) -> int:
    from mpi_dcasgd.cli.dry_run import show_job
    from mpi_dcasgd.config.load import load_job
    from mpi_dcasgd.drivers.world import Launch

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
    from mpi_dcasgd.drivers.agreeing import together
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
