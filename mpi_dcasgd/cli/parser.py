"""Parser of the command line. Nothing heavy is imported: ``--help`` must be quick."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import mpi_dcasgd
from mpi_dcasgd.cli.arguments import bare_resume
from mpi_dcasgd.cli.commands import COMMANDS, load_command
from mpi_dcasgd.errors import did_you_mean

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
    inner: argparse.ArgumentParser = args.parser
    del args.parser
    # argparse takes the positional arguments at the first option, so overrides may come after.
    overrides = getattr(args, "overrides", None)
    unknown = [word for word in rest if overrides is None or word.startswith("-")]
    if unknown:
        hint = _hint(unknown, inner, keys=overrides is not None)
        inner.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    if overrides is not None:
        args.overrides = [*overrides, *rest]
    return args


def _hint(unknown: Iterable[str], parser: argparse.ArgumentParser, *, keys: bool) -> str:
    """A guess at the option or key that was meant, or an empty string."""
    # Without their dashes, which all have in common.
    options = [o[2:] for action in parser._actions for o in action.option_strings if o[1] == "-"]
    for word in unknown:
        option, _, value = word.partition("=")
        if keys and option.startswith("--"):
            from mpi_dcasgd.config.schema import Job
            from mpi_dcasgd.messages import settings_of  # takes its time

            key = option[2:].replace("-", "_")
            if key.partition(".")[0] in settings_of(Job):
                return f"; a key of the job is set without dashes: {key}={value or '...'}"
        if near := did_you_mean(option.lstrip("-"), options):
            return near.replace("did you mean ", "did you mean --")
    return ""


class _Gather(argparse.Action):
    """Values of an option that may be given several times: all of them, in place of the default."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*([] if before is self.default else before), *values])


class _Parser(argparse.ArgumentParser):
    """Parser that says what a mistyped choice, such as the name of a command, may have meant.

    An option of one or more values may come several times, ``--only A --only B``: argparse by
    itself would take the last, and leave the others out without a word.
    """

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        if names[0].startswith("-") and settings.get("nargs") == "+":
            settings.setdefault("action", _Gather)
        return super().add_argument(*names, **settings)

    def error(self, message: str) -> NoReturn:
        found = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
        if found:
            message += did_you_mean(found[1], re.findall(r"[\w.-]+", found[2]))
        super().error(message)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
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
        inner.set_defaults(command=name, parser=inner)
    return parser
