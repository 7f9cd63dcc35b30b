"""``mpi-dcasgd bench prediction``: the simulator held against real runs."""

from __future__ import annotations

import argparse

from mpi_dcasgd.cli.arguments import count
from mpi_dcasgd.cli.bench_worlds import add_common, megabytes, milliseconds, show, starter, tell

TEXT = "the simulator's updates a second against those of the runs that it predicts"


def add_prediction(parser: argparse.ArgumentParser) -> None:
    """Add its options."""
    parser.add_argument(
        "--workers", type=count, default=2, metavar="N", help="number of workers (default: 2)"
    )
    parser.add_argument(
        "--params",
        type=count,
        default=1_250_000,
        metavar="N",
        help="parameters of the model, about (default: 1250000)",
    )
    parser.add_argument(
        "--step-ms",
        type=milliseconds,
        default=250.0,
        metavar="MS",
        help="mean time of a step (default: 250)",
    )
    parser.add_argument(
        "--steps",
        type=count,
        default=40,
        metavar="N",
        help="steps of each worker in a run (default: 40)",
    )
    parser.add_argument(
        "--chunk-mb",
        type=megabytes,
        default=0.5,
        metavar="MB",
        help="megabytes of a chunk (default: 0.5)",
    )
    add_common(parser, rounds=3)
    parser.set_defaults(measure=_prediction)


def _prediction(args: argparse.Namespace) -> int:
    """The command: real runs, a calibration and simulations, in turns.

    Raises:
        LaunchError: There is no launcher, or a run failed.
        RunFolderError: The runs waited for no link.
    """
    from mpi_dcasgd.runs.calibrate import shared_link_of
    from mpi_dcasgd.tools.bench.prediction import Trial, as_table, measure

    trial = Trial(args.workers, args.params, args.step_ms / 1e3, args.steps, args.chunk_mb)
    found = measure(trial, args.rounds, starter(args), shared_link_of, tell)
    show(args, found.entries(), as_table(found))
    return 0
