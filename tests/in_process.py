"""Commands run by this process instead of one of their own, which would import PyTorch anew."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import IO

from mpi_dcasgd.cli import main
from mpi_dcasgd.tools.launch.mpirun import MpirunCommand

START = (sys.executable, "-m", "mpi_dcasgd")


def run_here(
    genuine: Callable[..., int],
    command: MpirunCommand,
    *,
    run_dir: Path | None = None,
    stdout: IO[bytes] | None = None,
    stderr: IO[bytes] | None = None,
) -> int:
    """Stand in for ``launch.run``; what has a launcher in front is left to the genuine one."""
    if command.argv[:3] != START or stdout is None or stderr is None:
        return genuine(command, run_dir=run_dir, stdout=stdout, stderr=stderr)
    print(f"+ {command}", file=sys.stderr, flush=True)
    out, err = (io.TextIOWrapper(file, write_through=True) for file in (stdout, stderr))
    try:
        with redirect_stdout(out), redirect_stderr(err):
            return main(list(command.argv[3:]))
    finally:
        for text in (out, err):
            text.detach()
