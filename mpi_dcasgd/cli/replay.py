"""``mpi-dcasgd replay``: an asynchronous run computed again from its trace."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpi_dcasgd.cli.arguments import (
    add_overrides,
)
from mpi_dcasgd.errors import ConfigError

HELP = "recompute an asynchronous run from its trace"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    add_overrides(parser)
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="with key=value: folder to write the run into"
    )


def run(args: argparse.Namespace) -> int:
    """Compute a run again, as it was or with changes."""
    from mpi_dcasgd.runs.replay import replay_exactly, replay_under

    if args.overrides:
        return replay_under(args.run, args.overrides, args.run_dir, args.argv)
    if args.run_dir is not None:
        raise ConfigError(
            "command line",
            ["--run-dir: only with key=value words; computing a run again writes nothing"],
        )
    return replay_exactly(args.run)
