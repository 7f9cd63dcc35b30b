"""Processes of a benchmark: started, waited for, and their answer read from standard output."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.shell import shell_words
from mpi_dcasgd.tools.launch.mpirun import MpirunCommand
from mpi_dcasgd.tools.launch.world import plan


@dataclass(frozen=True)
class Starter:
    """Starts worlds with the launcher that the command line names.

    Attributes:
        launcher: As for `tools.launch.world.plan`; so are the others.
        mpirun: The mpirun to use.
        arguments: More arguments for it, as one word.
    """

    launcher: str | None = None
    mpirun: str | None = None
    arguments: str = ""

    def command(self, ranks: int, program: Sequence[str]) -> MpirunCommand:
        """The command that starts so many ranks of a program.

        Raises:
            LaunchError: There is no launcher.
        """
        extra = shell_words(self.arguments, "--mpirun-args")
        return plan(ranks, program, launcher=self.launcher, mpirun=self.mpirun, extra=extra)

    def finish(self, ranks: int, program: Sequence[str]) -> str:
        """Start a world, wait for its end, and return what it printed.

        Raises:
            LaunchError: There is no launcher, or the world failed.
        """
        command = self.command(ranks, program)
        return finish(command.argv, command.env, str(command))


def finish(argv: Sequence[str], env: Mapping[str, str] | None = None, shown: str = "") -> str:
    """Run a program to its end and return what it printed.

    Args:
        argv: The program.
        env: Variables beside those of this process.
        shown: The command as errors show it; ``argv`` if empty.

    Raises:
        LaunchError: It failed.
    """
    done = subprocess.run(
        argv,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        shown = shown or shlex.join(argv)
        raise LaunchError(f"{shown}\nfailed with status {done.returncode}:\n{done.stderr}")
    return done.stdout


def answer_in(printed: str) -> Any:
    r"""Return the value of the last line of JSON, among whatever launchers print.

    Raises:
        LaunchError: There is none.

    Example:
        >>> answer_in('some banner\n[{"a": 1}]\n')
        [{'a': 1}]
    """
    for line in reversed(printed.splitlines()):
        if line.startswith("["):
            with suppress(ValueError):
                return json.loads(line)
    raise LaunchError(f"a benchmark's processes ended without an answer; they printed:\n{printed}")
