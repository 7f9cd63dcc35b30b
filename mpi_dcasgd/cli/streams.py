"""Standard streams and the current folder of a command, whatever state they are in."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress

from mpi_dcasgd.errors import UserError

_GONE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF, errno.EFBIG)


def prepare_streams() -> None:
    """Have all three streams open, and able to print any letter.

    A closed one is opened on nothing: the next file that is opened would have its number, and get
    what the ranks, or C libraries, print.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != number:
                os.dup2(nothing, number)
                os.close(nothing)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 # to the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def check_folder() -> None:
    """Refuse to work in a current folder that is no more.

    Raises:
        UserError: It was removed.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError(
            "the current folder was removed; change to one that exists (`cd .` enters one that "
            "was made again under the same name)"
        ) from None


def stdout_failure(error: OSError | None = None) -> str | None:
    """Return why standard output cannot be written, and give up on it; None if it can.

    A pipe whose reader has left is no failure, and the reason is then empty.

    Args:
        error: What a command ended with, if it did; without one the output is flushed.

    Raises:
        OSError: ``error``, if it is not standard output's.
    """
    try:
        sys.stdout.flush()
        found = error
    except OSError as again:
        found = again
    if found is None:
        return None
    broken_pipe = isinstance(found, BrokenPipeError)
    if not broken_pipe and (found.errno not in _GONE or found.filename is not None):
        raise found
    # The interpreter flushes stdout once more when it ends, and would complain.
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return "" if broken_pipe else f"standard output: cannot be written: {found.strerror}"
