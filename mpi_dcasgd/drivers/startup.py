"""Getting through start-up together: what stops one rank must stop all, with one message."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from mpi_dcasgd.errors import LaunchError, UserError
from mpi_dcasgd.learning.data import find_files, list_files, tell_files
from mpi_dcasgd.learning.settings import DataSettings

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")


def together(comm: MPI.Comm, step: Callable[[], T]) -> T:
    """Do one step of start-up on every rank and go on only if all of them managed.

    Args:
        comm: Every rank of it must call this.
        step: What to do on this rank.

    Raises:
        UserError: On every rank alike, if ``step`` raised one on any: the error itself where all
            ranks say the same, otherwise a list of what each of them said.
    """
    error: UserError | None = None
    result: list[T] = []
    try:
        result.append(step())
    except UserError as caught:
        error = caught
    said = comm.allgather(None if error is None else (socket.gethostname(), str(error)))
    if all(line is None for line in said):
        return result[0]
    texts = {line[1] for line in said if line is not None}
    if error is not None and len(texts) == 1 and None not in said:
        raise error
    raise LaunchError("start-up failed" + "".join(_grouped(said)))


def share_files(comm: MPI.Comm, settings: DataSettings) -> None:
    """Let rank 0 look for the data's files, and all other ranks take its word for it.

    A million images on a parallel file system take minutes to list, and all the longer the more
    ranks do it at once.

    Raises:
        UserError: On every rank alike, if the data are missing on any.
    """
    together(comm, lambda: find_files(settings))
    found = together(comm, lambda: list_files(settings) if comm.rank == 0 else None)
    tell_files(settings, comm.bcast(found))


def _grouped(said: list[tuple[str, str] | None]) -> list[str]:
    """One line for each thing said, with the ranks that said it."""
    speakers: dict[tuple[str, str], list[int]] = {}
    for rank, line in enumerate(said):
        if line is not None:
            speakers.setdefault(line, []).append(rank)
    return [
        f"\n  rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))} on {host}: {text}"
        for (host, text), ranks in speakers.items()
    ]
