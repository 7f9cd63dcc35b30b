"""``mpi-dcasgd replay``: an asynchronous run computed again from its trace."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mpi_dcasgd import STARTED
from mpi_dcasgd.cli.arguments import (
    add_overrides,
    add_resume,
)
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.quick import importing_torch

HELP = "recompute an asynchronous run from its trace"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    add_overrides(parser)
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="with key=value: folder to write the run into"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="with key=value: replace a finished run that --run-dir holds",
    )
    parser.add_argument(
        "--code",
        metavar="DIR",
        help="folder in which modules of one's own are looked for first; `recorded` for the copies "
        "in the run folder (default: where the run had them from)",
    )
    add_resume(parser)


def run(args: argparse.Namespace) -> int:
    """Compute a run again, as it was or with changes."""
    with importing_torch():
        from mpi_dcasgd.drivers.signals import StopFlag
        from mpi_dcasgd.runs.hung_files import own_process
        from mpi_dcasgd.runs.replay import replay

    if not args.overrides:
        ignored = [
            f"--{name.replace('_', '-')}: only with key=value words; computing a run again writes "
            "nothing"
            for name in ("run_dir", "overwrite", "resume")
            if getattr(args, name)
        ]
        if ignored:
            raise ConfigError("command line", ignored)
        with own_process():
            found = replay(args.run, code=args.code, show=sys.stdout)
        print(found)
        return 0 if found else 1
    stop = StopFlag()
    with own_process(), stop.listening():
        made = replay(
            args.run,
            args.run_dir,
            resume=args.resume or "auto",
            overwrite=args.overwrite,
            code=args.code,
            show=sys.stdout,
            words=args.overrides,
            argv=args.argv,
            started=STARTED,
            stop=stop,
        )
    return 128 + made.stopped_by if made.stopped_by else 0
