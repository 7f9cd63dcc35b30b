"""Commands run by this process instead of one of their own, which would import PyTorch anew."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import IO

from mpi_dcasgd.cli import main
from mpi_dcasgd.stop_signals import SIGNALS
from mpi_dcasgd.tools.launch.mpirun import MpirunCommand
from mpi_dcasgd.tools.launch.world import WorldEnd

START = (sys.executable, "-m", "mpi_dcasgd")


@contextmanager
def handlers_as_they_were() -> Iterator[None]:
    """Give signals back the handlers that a command installs to the end of its process."""
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def command(*words: str) -> int:
    """Exit status of a command of ``mpi-dcasgd``."""
    with handlers_as_they_were():
        return main(list(words))


def run_here(
    genuine: Callable[..., WorldEnd],
    to_run: MpirunCommand,
    *,
    run_dir: Path | None = None,
    stdout: IO[bytes] | None = None,
    stderr: IO[bytes] | None = None,
) -> WorldEnd:
    """Stand in for ``launch.run_world``; what has a launcher is left to the genuine one."""
    if to_run.argv[:3] != START or stdout is None or stderr is None:
        return genuine(to_run, run_dir=run_dir, stdout=stdout, stderr=stderr)
    print(f"+ {to_run}", file=sys.stderr, flush=True)
    out, err = (io.TextIOWrapper(file, write_through=True) for file in (stdout, stderr))
    try:
        with redirect_stdout(out), redirect_stderr(err):
            return WorldEnd(command(*to_run.argv[3:]))
    finally:
        for text in (out, err):
            text.detach()
