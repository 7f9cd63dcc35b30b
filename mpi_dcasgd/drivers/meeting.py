"""Start-up as a series of meetings, none of which waits for ever for a rank that does not come.

A collective operation of MPI waits until every rank takes part: for one that hangs it waits for
ever, and of one that died some ranks hear and others do not. So during start-up every rank writes
to rank 0, which looks at who has come, knows who is missing, and tells all others. While rank 0
waits it says so every few seconds, or it would be rank 0 that is held to hang.

This needs no thread and none of MPI's thread levels. It is slower than MPI's own operations, so
training does not use it.
"""

from __future__ import annotations

import pickle
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np

from mpi_dcasgd.drivers.backoff import Backoff
from mpi_dcasgd.drivers.fault_settings import FaultSettings, Patience, setup_patience_s
from mpi_dcasgd.drivers.patience import Watch
from mpi_dcasgd.errors import RanksLostError
from mpi_dcasgd.server.message import Tag

if TYPE_CHECKING:
    from mpi4py import MPI

TOLD_S = 60.0
"""Seconds after which those that are waited for are named for the first time."""
BEAT_S = 5.0
"""Seconds from one word of a waiting rank 0 to the next."""
_BEATS = 4.0
"""Words of a waiting rank 0 within a patience, at least."""
_APART_S = 1.0
"""Seconds from one rank that gives up rank 0 to the next, so that one of them speaks."""

_ARRIVE, _ANSWER = Tag.ARRIVE, Tag.ARRIVED


class Ranks(Protocol):
    """Part of a communicator that start-up needs; MPI's own have it, too."""

    @property
    def rank(self) -> int:
        """Number of this rank."""

    @property
    def size(self) -> int:
        """Number of ranks."""

    def allgather(self, sendobj: Any) -> list[Any]:
        """Return what every rank says."""

    def bcast(self, obj: Any) -> Any:
        """Return what rank 0 says."""


class Meeting:
    """Meetings of all ranks of a communicator, one after the other.

    Args:
        comm: The ranks; nobody else may use the tags 21 and 22 on it.
        patience: Seconds that one rank may be later than the others, ``auto`` or ``never``.
        clock: Seconds, monotonic.

    Attributes:
        comm: The ranks.
        patience_s: Seconds that one rank may be later than the others.
        doing: What the ranks do until the next meeting, for people, such as "reading the data".
        hosts: Host of each rank.

    Raises:
        RanksLostError: On all ranks that are left, if one died or does not come. Its methods
            raise it, too.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        patience: Patience = "auto",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.comm = comm
        self._clock = clock
        self.patience_s = seconds = setup_patience_s(patience)
        self._settings = FaultSettings(patience="never" if patience == "never" else seconds)
        self._beat_s = min(BEAT_S, seconds / _BEATS)
        self._beats: list[MPI.Request] = []  # they own what is on its way
        self.rank: int = comm.rank
        self.size: int = comm.size
        self.doing = "starting with this version of mpi_dcasgd"
        self.hosts = [""] * comm.size
        self.hosts = self.allgather(socket.gethostname())

    def name(self, rank: int) -> str:
        """Name a rank for people: ``rank 2 on node7``."""
        host = self.hosts[rank]
        return f"rank {rank} on {host}" if host else f"rank {rank}"

    def allgather(self, sendobj: Any) -> list[Any]:
        """Return what every rank says, by rank; all ranks must call."""
        if self.rank == 0:
            found = self._gather(sendobj)
            self._answer(found)
            return found
        return list(self._ask(sendobj))

    def bcast(self, obj: Any) -> Any:
        """Return what rank 0 says; all ranks must call, and nobody goes on before all have."""
        if self.rank == 0:
            self._gather(None)
            self._answer(obj)
            return obj
        return self._ask(None)

    def bcast_large(self, obj: Any) -> Any:
        """Return what rank 0 says, which is too much for rank 0 to send to everybody itself."""
        from mpi4py import MPI

        content = pickle.dumps(obj) if self.rank == 0 else b""
        size = self.bcast(len(content))
        buffer = bytearray(content or size)
        request, backoff = self.comm.Ibcast([np.frombuffer(buffer, np.uint8), MPI.BYTE]), Backoff()
        try:
            while not request.Test():
                backoff.pause()
        except Exception as error:  # MPI's
            self._raise_death(error, revoke=True)
        return obj if self.rank == 0 else pickle.loads(buffer)

    def barrier(self) -> None:
        """Return when all ranks have come."""
        self.bcast(None)

    def _gather(self, value: Any) -> list[Any]:
        """Wait, on rank 0, until all others have come; return what they say."""
        found = [value] + [None] * (self.size - 1)

        def arrived(rank: int) -> bool:
            if not self.comm.iprobe(source=rank, tag=_ARRIVE):
                return False
            found[rank] = self.comm.recv(source=rank, tag=_ARRIVE)
            return True

        self._await(arrived, beat=True)
        return found

    def _answer(self, value: Any) -> None:
        """Tell all others, on rank 0; they all wait for it."""
        content = pickle.dumps(value)
        requests = {
            rank: self.comm.isend((True, content), rank, _ANSWER) for rank in range(1, self.size)
        }
        self._await(lambda rank: requests[rank].Test())

    def _await(self, come: Callable[[int], bool], *, beat: bool = False) -> None:
        """Wait, on rank 0, until something holds of all others."""
        waiting = set(range(1, self.size))
        watch, backoff = Watch(self._settings, self.size, self._clock), Backoff(clock=self._clock)
        for rank in waiting:
            watch.asked(rank)
        told, beat_at = False, self._clock() + self._beat_s
        while waiting:
            try:
                come_now = [rank for rank in waiting if come(rank)]
            except Exception as error:  # MPI's
                self._raise_death(error)
            for rank in come_now:
                watch.heard(rank)
                waiting.discard(rank)
            if late := watch.look():
                self._raise_hang(late, watch.silent_s(late[0]))
            if beat and self._clock() >= beat_at:
                self._beat(waiting)
                beat_at = self._clock() + self._beat_s
            if not told and any(watch.silent_s(rank) >= TOLD_S for rank in waiting):
                told = True
                _say(f"waiting for {self._names(waiting)}: {self.doing} takes long there")
            if not come_now:
                backoff.pause()

    def _ask(self, value: Any) -> Any:
        """Come, on another rank, and return rank 0's answer."""
        watch, backoff = Watch(self._settings, 1, self._clock), Backoff(clock=self._clock)
        more_s = _APART_S * self.rank
        watch.asked(0)
        try:
            arrival = self.comm.isend(value, 0, _ARRIVE)
            while True:
                arrival.Test()  # MPI moves what is large only when it is called
                if self.comm.iprobe(source=0, tag=_ANSWER):
                    word, content = self.comm.recv(source=0, tag=_ANSWER)
                    if word is True:
                        return pickle.loads(content)
                    if word is False:
                        raise RanksLostError(content, told=True)
                    watch.asked(0)  # it waits for others
                watch.look()
                if watch.silent_s(0) >= watch.patience_s(0) + more_s:
                    self._raise_hang([0], watch.silent_s(0))
                backoff.pause()
        except RanksLostError:
            raise
        except Exception as error:  # MPI's
            self._raise_death(error)

    def _beat(self, waiting: Collection[int]) -> None:
        self._beats = [request for request in self._beats if not request.Test()]
        for rank in set(range(1, self.size)) - set(waiting):
            self._beats.append(self.comm.isend((None, None), rank, _ANSWER))

    def death(self, error: Exception) -> tuple[str, list[int]]:
        """Return what an error of MPI means in words, and the ranks that died; raise any other."""
        if "mpi4py.MPI" not in sys.modules:
            raise error
        from mpi_dcasgd.drivers.deaths import failed_ranks, is_death

        if not is_death(error):
            raise error
        dead = failed_ranks(self.comm)
        return f"{self._names(dead)} died during start-up, while {self.doing}", dead

    def _raise_death(self, error: Exception, *, revoke: bool = False) -> NoReturn:
        """Raise what an error of MPI means, and have the others know it."""
        text, dead = self.death(error)
        if revoke:  # they wait for one another, and not for rank 0
            self.comm.Revoke()
        elif self.rank == 0:
            self._tell_loss(text, dead)
        first = min(set(range(self.size)) - set(dead))
        raise RanksLostError(text, told=self.rank != first) from None

    def _raise_hang(self, late: Collection[int], silent_s: float) -> NoReturn:
        verb = "hangs" if len(late) == 1 else "hang"
        text = (
            f"{self._names(late)} {verb} during start-up, while {self.doing}: nothing came from "
            f"{'it' if len(late) == 1 else 'them'} for {silent_s:.1f} s (faults.setup_patience)"
        )
        if self.rank == 0:
            self._tell_loss(text, late)
        raise RanksLostError(text, hung=True)

    def _tell_loss(self, text: str, lost: Collection[int]) -> None:
        for rank in set(range(1, self.size)) - set(lost):
            with suppress(Exception):  # MPI's: it has died as well
                self._beats.append(self.comm.isend((False, text), rank, _ANSWER))

    def _names(self, ranks: Iterable[int]) -> str:
        return ", ".join(map(self.name, sorted(ranks)))


def own_copy(comm: MPI.Intracomm, patience: Patience = "auto") -> MPI.Intracomm:
    """Duplicate a caller's communicator; all its ranks must call.

    Args:
        comm: Not used otherwise: receives that the caller has posted would take what start-up
            sends, and nobody can say here who is missing.
        patience: Seconds that one rank may be later than the others, ``auto`` or ``never``.

    Raises:
        RanksLostError: One of them does not come.
    """
    copy, request = comm.Idup()
    seconds = setup_patience_s(patience)
    watch, backoff = (
        Watch(FaultSettings(patience="never" if patience == "never" else seconds), 1),
        Backoff(),
    )
    watch.asked(0)
    while not request.Test():
        if watch.look():
            raise RanksLostError(
                f"rank {comm.rank} has waited for {watch.silent_s(0):.1f} s for the other ranks of "
                f"the communicator of {comm.size} that train() was given (faults.setup_patience): "
                "all of them have to call it",
                hung=True,
            )
        backoff.pause()
    return copy


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
