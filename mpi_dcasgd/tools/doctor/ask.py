"""Questions to processes that may hang or crash: each has a limit, and tells all it came to."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

_AFTER_TERM_S = 5.0
_LONGEST = 300
_RAISED = re.compile(r"(\w+\.)*\w*(Error|Exception)\b")


@dataclass(frozen=True)
class Answer:
    """Answer of a process until it ended, or was ended.

    Attributes:
        facts: All that it found out.
        trouble: Why it did not come to its end, as one line; empty if it did.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    trouble: str = ""


def ask_probe(*words: str, limit_s: float, env: Mapping[str, str]) -> Answer:
    """Ask `mpi_dcasgd.tools.doctor.probe` in a process of its own, with this Python.

    Args:
        words: Name of the probe and its arguments.
        limit_s: Seconds after which the process is ended.
        env: Its environment.
    """
    return ask([sys.executable, "-m", "mpi_dcasgd.tools.doctor.probe", *words], limit_s, env)


def ask(argv: Sequence[str], limit_s: float, env: Mapping[str, str]) -> Answer:
    """Run a program that prints facts as lines of JSON, each a mapping.

    Args:
        argv: The program.
        limit_s: Seconds after which it is ended, with all that it has started.
        env: Its environment.
    """
    status, out, err = bounded(argv, limit_s, env)
    facts: dict[str, Any] = {}
    for line in out.splitlines():
        with suppress(ValueError):
            found = json.loads(line)
            facts |= found if isinstance(found, dict) else {}
    if status == 0:
        return Answer(facts)
    return Answer(facts, _trouble(status, err or out, limit_s))


def bounded(
    argv: Sequence[str], limit_s: float, env: Mapping[str, str]
) -> tuple[int | None, str, str]:
    """Run a program for so many seconds at most.

    Its output goes to files: a child that outlives it could keep a pipe open.

    Returns:
        Its exit status (None if it was ended), and what it wrote to stdout and stderr.
    """
    with _scratch() as out, _scratch() as err:
        try:
            process = subprocess.Popen(
                argv,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        except OSError as error:
            return 127, "", f"{argv[0]}: {error.strerror}"
        status: int | None = None
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if status is None:
                _end(process)
        return status, _read(out), _read(err)


def _scratch() -> Any:
    """Open a file in memory, since a disk may be full."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("doctor"), "w+b")
    return tempfile.TemporaryFile()


def _read(file: Any) -> str:
    file.seek(0)
    return bytes(file.read()).decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its session; one that the kernel holds is left, not waited for."""
    for signum in (signal.SIGTERM, signal.SIGKILL):  # mpirun ends its ranks at the first
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_AFTER_TERM_S)


def _trouble(status: int | None, said: str, limit_s: float) -> str:
    if status is None:
        return f"no answer in {limit_s:g} s"
    if status < 0:
        return f"crashed with {signal.Signals(-status).name}"
    lines = [line.strip() for line in said.splitlines() if line.strip(" -*=")]
    raised = [line for line in lines if _RAISED.match(line)]  # launchers say more after that
    last = (raised or lines or [f"exit status {status}"])[-1]
    return last if len(last) <= _LONGEST else last[: _LONGEST - 3] + "..."
