"""The commands. Nothing heavy is imported before it is known which one is wanted."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from mpi_dcasgd import STARTED
from mpi_dcasgd.cli.commands import load_command
from mpi_dcasgd.cli.parser import parse
from mpi_dcasgd.cli.streams import check_folder, prepare_streams, stdout_failure
from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.errors import INTERRUPTED, DcasgdError, UserError
from mpi_dcasgd.stop_signals import SIGNALS
from mpi_dcasgd.tools.launch.surroundings import refuse_many

__all__ = ["INTERRUPTED", "STARTED", "main"]

_ONCE = (
    *("run", "simulate", "replay", "compare", "calibrate", "stability", "bench", "chaos"),
    "doctor",
)
"""Commands that train, or start ranks, and are no ranks themselves."""

_TRAINS = ("train", "run", "simulate", "compare")
"""Commands that write their result into files, and only show progress."""


def main(argv: Sequence[str] | None = None) -> int:
    """Execute a command line.

    Args:
        argv: Without the program's name; this process's own if None.

    Returns:
        The exit status: 0, 1 for a failure, 2 for a mistake of the user's, 128 + n for signal n.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        prepare_streams()
    try:
        check_folder()
        args = parse(words)
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_status
    except SystemExit as done:  # argparse has said all there is to say
        return done.code if isinstance(done.code, int) else 2
    args.argv = ["mpi-dcasgd", *words]
    failure: OSError | None = None
    status = 0
    try:
        if args.command in _ONCE and not refuse_many(args.command):
            return 0
        status = load_command(args.command).run(args)
    except DcasgdError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        status = error.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = INTERRUPTED
    except OSError as error:
        failure = error
    if argv is None:
        _decide()
    return _with_output(status, args.command, failure)


def _decide() -> None:
    """Let the exit status be what it is: a signal while the process ends does not change it.

    SLURM would have a completed run started again. A second signal still ends the process.
    """
    usual = (signal.SIG_DFL, signal.default_int_handler)
    StopFlag().listen(signum for signum in SIGNALS if signal.getsignal(signum) in usual)


def _with_output(status: int, command: str, failure: OSError | None) -> int:
    """The exit status of a command whose output may have been lost: for some it is the result."""
    reason = stdout_failure(failure)
    if not reason:  # `mpi-dcasgd ... | head` is no failure
        return status
    print(reason, file=sys.stderr)
    return status if command in _TRAINS and failure is None else status or 1
