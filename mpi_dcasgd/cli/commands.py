"""The commands of ``mpi-dcasgd``: one module each, one line of this table each.

A command's module has a docstring and

- ``HELP``, one line for the list of commands,
- ``add_arguments(parser)``, its options,
- ``run(args) -> int``, which does the work and returns the exit status.

Whatever takes time to import is imported inside ``run``: ``--help`` must be quick.
"""

from __future__ import annotations

import argparse
import importlib
from typing import Protocol, cast

COMMANDS = {
    "init": "mpi_dcasgd.cli.init",
    "train": "mpi_dcasgd.cli.train",
    "run": "mpi_dcasgd.cli.run",
    "compare": "mpi_dcasgd.cli.compare",
    "report": "mpi_dcasgd.cli.report",
    "replay": "mpi_dcasgd.cli.replay",
    "submit": "mpi_dcasgd.cli.submit",
    "status": "mpi_dcasgd.cli.status",
    "watch": "mpi_dcasgd.cli.watch",
    "timeline": "mpi_dcasgd.cli.timeline",
    "closeup": "mpi_dcasgd.cli.closeup",
    "stability": "mpi_dcasgd.cli.stability",
    "sharpness": "mpi_dcasgd.cli.sharpness",
    "advise": "mpi_dcasgd.cli.advise",
    "conformance": "mpi_dcasgd.cli.conformance",
    "simulate": "mpi_dcasgd.cli.simulate",
    "plan": "mpi_dcasgd.cli.plan",
    "calibrate": "mpi_dcasgd.cli.calibrate",
    "doctor": "mpi_dcasgd.cli.doctor",
    "chaos": "mpi_dcasgd.cli.chaos",
    "bench": "mpi_dcasgd.cli.bench",
}
"""Name to module, in the order in which ``--help`` lists them."""


class Command(Protocol):
    """The shape of a command's module."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


def load_command(name: str) -> Command:
    """Import the module of a command."""
    return cast(Command, importlib.import_module(COMMANDS[name]))
