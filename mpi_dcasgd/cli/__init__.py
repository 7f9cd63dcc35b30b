"""The commands. Nothing heavy is imported before it is known which one is wanted."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from mpi_dcasgd import STARTED
from mpi_dcasgd.cli.commands import load_command
from mpi_dcasgd.cli.parser import parse
from mpi_dcasgd.errors import INTERRUPTED, DcasgdError

__all__ = ["INTERRUPTED", "STARTED", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Execute a command line.

    Args:
        argv: Without the program's name; this process's own if None.

    Returns:
        The exit status: 0, 1 for a failure, 2 for a mistake of the user's, 128 + n for signal n.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        args = parse(words)
    except SystemExit as done:  # argparse has said all there is to say
        return done.code if isinstance(done.code, int) else 2
    args.argv = ["mpi-dcasgd", *words]
    try:
        status: int = load_command(args.command).run(args)
    except DcasgdError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `mpi-dcasgd ... | head` is no failure
        status = 0
    _flush()
    return status


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError:  # nobody reads it any more
        # The interpreter flushes stdout once more when it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
