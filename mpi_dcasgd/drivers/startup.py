"""Start-up in step: an error on one rank stops all of them, with one message."""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from mpi_dcasgd.drivers.meeting import Meeting, Ranks
from mpi_dcasgd.errors import DcasgdError, LaunchError, RanksLostError, StartError, UserError
from mpi_dcasgd.learning.data import DataSource, find_files, list_files, tell_files
from mpi_dcasgd.sources import sources_of
from mpi_dcasgd.wording import agreeing

T = TypeVar("T")


class _Said(NamedTuple):
    """A rank's description of its error."""

    host: str
    text: str
    users: bool


def together(comm: Ranks, step: Callable[[], T]) -> T:
    """Run one step of start-up on every rank, and continue only if it succeeded on all.

    Args:
        comm: Every rank of it must call this.
        step: The step on this rank.

    Returns:
        The result of the step on this rank.

    Raises:
        UserError: On every rank, if ``step`` raised one on any: the error itself if all ranks
            report the same, otherwise a list of what each reported.
        StartError: On every rank, with such a list, if ``step`` raised anything else on any.
    """
    error: BaseException | None = None
    result: list[T] = []
    try:
        result.append(step())
    except RanksLostError:  # which all ranks have
        raise
    except (Exception, SystemExit) as caught:
        error = caught
    said = comm.allgather(None if error is None else _said(error))
    told = [line for line in said if line is not None]
    if not told:
        return result[0]
    alike = len(told) == len(said) and len({line.text for line in told}) == 1
    if alike and isinstance(error, UserError):
        raise error
    text = "start-up failed" + "".join(_grouped(said))
    if all(line.users for line in told):
        raise LaunchError(text)
    first = next(rank for rank, line in enumerate(said) if line is not None and not line.users)
    if error is not None and comm.rank == first and not isinstance(error, DcasgdError):
        traceback.print_exception(error)
    raise StartError(text) from error


def _said(error: BaseException) -> _Said:
    users = isinstance(error, UserError)
    text = str(error) if users else f"{type(error).__name__}: {error}".rstrip(": ")
    return _Said(socket.gethostname(), text, users)


def check_alike(comm: Ranks, what: str, value: str) -> None:
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
            f"{what} differ between rank 0 and {agreeing(len(others), 'rank')} "
            f"{', '.join(map(str, others))}: the model must come out the same on every rank; build "
            "it from the job's seed, or from a file that all of them read"
        )


def agree_on_code(comm: Ranks, names: Sequence[str]) -> None:
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


def share_files(comm: Meeting, data: DataSource) -> None:
    """List the data's files on rank 0 and send the list to all others.

    A million images on a parallel file system take minutes to list, and longer the more ranks do
    it at once.

    Raises:
        UserError: On every rank, if the data are missing on any.
    """
    together(comm, lambda: find_files(data))
    found = together(comm, lambda: list_files(data) if comm.rank == 0 else None)
    tell_files(data, comm.bcast_large(found))


def _grouped(said: Sequence[_Said | None]) -> list[str]:
    """Return a line for each different report, with the ranks that made it."""
    speakers: dict[tuple[str, str], list[int]] = {}
    for rank, line in enumerate(said):
        if line is not None:
            speakers.setdefault((line.host, line.text), []).append(rank)
    return [
        f"\n  {agreeing(len(ranks), 'rank')} {', '.join(map(str, ranks))} on {host}: {text}"
        for (host, text), ranks in speakers.items()
    ]
