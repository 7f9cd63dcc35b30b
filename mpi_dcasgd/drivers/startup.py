"""Start-up in step: an error on one rank stops all of them, with one message."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from mpi_dcasgd.errors import LaunchError, UserError
from mpi_dcasgd.learning.data import DataSource, find_files, list_files, tell_files
from mpi_dcasgd.sources import sources_of

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")


def together(comm: MPI.Comm, step: Callable[[], T]) -> T:
    """Run one step of start-up on every rank, and continue only if it succeeded on all.

    Args:
        comm: Every rank of it must call this.
        step: The step on this rank.

    Returns:
        The result of the step on this rank.

    Raises:
        UserError: On every rank, if ``step`` raised one on any: the error itself if all ranks
            report the same, otherwise a list of what each reported.
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


def check_alike(comm: MPI.Comm, what: str, value: str) -> None:
    """Refuse to train on ranks that do not have the same.

    Args:
        comm: Every rank of it must call this.
        what: Name of it, in the plural.
        value: This rank's, or a digest of it.

    Raises:
        LaunchError: On every rank, if any has another than rank 0.
    """
    values = comm.allgather(value)
    others = [rank for rank, its in enumerate(values) if its != values[0]]
    if others:
        raise LaunchError(
            f"{what} differ between rank 0 and rank{'s' if len(others) > 1 else ''} "
            f"{', '.join(map(str, others))}: the model must come out the same on every rank; build "
            "it from the job's seed, or from a file that all of them read"
        )


def agree_on_code(comm: MPI.Comm, names: Sequence[str]) -> None:
    """Refuse ranks whose copies of the user's own modules differ.

    Args:
        comm: Every rank of it must call this.
        names: What the job names by ``package.module:Name``.

    Raises:
        LaunchError: On every rank, with the hosts and the files.
    """
    mine = {source.module: source for source in sources_of(names)}
    told = comm.allgather((socket.gethostname(), mine))
    for module in sorted({module for _, found in told for module in found}):
        copies = [(host, found[module]) for host, found in told if module in found]
        if len({source.sha256 for _, source in copies}) > 1:
            lines = dict.fromkeys(
                f"\n  {source.sha256[:16]}: {host}, {source.file}" for host, source in copies
            )
            raise LaunchError(
                f"the module {module} is not the same on all ranks; copy it to all hosts, or name "
                f"one folder that all of them see (code=...):{''.join(lines)}"
            )


def share_files(comm: MPI.Comm, data: DataSource) -> None:
    """List the data's files on rank 0 and send the list to all others.

    A million images on a parallel file system take minutes to list, and longer the more ranks do
    it at once.

    Raises:
        UserError: On every rank, if the data are missing on any.
    """
    together(comm, lambda: find_files(data))
    found = together(comm, lambda: list_files(data) if comm.rank == 0 else None)
    tell_files(data, comm.bcast(found))


def _grouped(said: list[tuple[str, str] | None]) -> list[str]:
    """Return a line for each different report, with the ranks that made it."""
    speakers: dict[tuple[str, str], list[int]] = {}
    for rank, line in enumerate(said):
        if line is not None:
            speakers.setdefault(line, []).append(rank)
    return [
        f"\n  rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))} on {host}: {text}"
        for (host, text), ranks in speakers.items()
    ]
