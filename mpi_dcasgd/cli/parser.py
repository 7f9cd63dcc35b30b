"""What can be said on the command line. Nothing heavy is imported: ``--help`` must be quick."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import mpi_dcasgd
from mpi_dcasgd.cli.arguments import bare_resume
from mpi_dcasgd.cli.commands import COMMANDS, load_command

_EPILOG = """\
examples:
  mpirun -n 5 python -m mpi_dcasgd train jobs/digits.yaml algorithm=dcasgd-a
  mpi-dcasgd run -n 5 jobs/digits.yaml algorithm=dcasgd-a
  mpi-dcasgd compare jobs/compare_digits.yaml
  mpi-dcasgd submit jobs/compare_digits.yaml --partition gpu --gpus-per-node 4
"""


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; ``command`` of the result is the name of a command.

    Raises:
        SystemExit: It is wrong (status 2), or asked for help or the version (0).
    """
    parser = build_parser()
    args, rest = parser.parse_known_args(bare_resume(words))
    # argparse takes the positional arguments at the first option, so overrides may come after.
    overrides = getattr(args, "overrides", None)
    unknown = [word for word in rest if overrides is None or word.startswith("-")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if overrides is not None:
        args.overrides = [*overrides, *rest]
    return args


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="mpi-dcasgd",
        description="Train with asynchronous SGD and delay compensation over MPI, or with "
        "Horovod's synchronous SGD, from the same job file.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=f"mpi-dcasgd {mpi_dcasgd.__version__}"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        command = load_command(name)
        text = command.HELP
        description = f"{text[0].upper()}{text[1:]}."
        inner = commands.add_parser(name, help=text, description=description, allow_abbrev=False)
        command.add_arguments(inner)
        inner.set_defaults(command=name)
    return parser
