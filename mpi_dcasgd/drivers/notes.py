"""Notes between workers and server beside gradients: that one has failed, and whether one is there.

A worker that waits asks the server every few seconds whether it is there. The server answers
between two pushes and while it waits itself, for an evaluation for instance. So a server that
works is never held to hang, however long a reply takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from mpi4py import MPI

from mpi_dcasgd.drivers.backoff import Backoff
from mpi_dcasgd.drivers.deaths import failed_ranks, is_death
from mpi_dcasgd.drivers.fault_settings import FaultSettings
from mpi_dcasgd.drivers.lifelines import TEXT, Lifelines
from mpi_dcasgd.drivers.patience import LAST_ONES, Watch
from mpi_dcasgd.drivers.signals import outlives_deaths
from mpi_dcasgd.drivers.topology import SERVER
from mpi_dcasgd.errors import RanksLostError
from mpi_dcasgd.server.message import Tag

_NOTE, _HERE = Tag.NOTE, Tag.HERE

_LOOK_EVERY_S = 0.1
_ASK_EVERY_S = 5.0
_ASKS = 4.0
"""Questions within a patience, at least."""
_APART_S = 1.0
"""Seconds from one worker that gives up the server to the next, so that one of them speaks."""
_LAST_WORDS_S = 1.0
"""Seconds in which a server that failed ends the world and says why itself."""
_TAKEN_S = 10.0
"""Seconds in which a server that is there takes a note."""


class Failure(NamedTuple):
    """A worker's own exception.

    Attributes:
        worker: Which.
        text: The exception.
    """

    worker: int
    text: str


class Desk:
    """Desk at which the server reads and answers notes.

    Args:
        peers: Communicator and rank of each worker; new processes may take workers' places in it.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        peers: Sequence[tuple[MPI.Comm, int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._peers = peers
        self._clock = clock
        self._next_s = 0.0
        self._failures: list[Failure] = []
        self._answers: dict[tuple[int, int], MPI.Request] = {}
        self._lifelines: Lifelines | None = None
        self._holders: list[tuple[MPI.Comm, int]] = []
        self._failed: set[int] = set()

    def hold(self, lifelines: Lifelines) -> None:
        """Take an end of a worker's process that nobody tells of for a failure, from now on."""
        self._lifelines = lifelines
        self._holders = list(self._peers)

    def look(self) -> None:
        """Read what has come and answer it, every tenth of a second."""
        now = self._clock()
        if now < self._next_s:
            return
        self._next_s = now + _LOOK_EVERY_S
        for worker, (comm, rank) in enumerate(self._peers):
            with suppress(MPI.Exception):  # it is dead, and the loop is told by its receive
                while comm.iprobe(source=rank, tag=_NOTE):
                    text = comm.recv(source=rank, tag=_NOTE)
                    if text is None:
                        self._answer(comm, rank)
                    else:
                        self._failed.add(worker)
                        self._failures.append(Failure(worker, text))
        for worker in self._lifelines.ended() if self._lifelines else ():
            comm, rank = self._holders[worker]
            # Another process may have its place by now, or it has said why, or MPI knows more.
            known = self._peers[worker] != (comm, rank) or worker in self._failed
            if not known and not (outlives_deaths() and rank in failed_ranks(comm)):
                self._failures.append(Failure(worker, TEXT))

    def failures(self) -> list[Failure]:
        """Look, and return the failures that have been read since the last call."""
        self.look()
        found, self._failures = self._failures, []
        return found

    def _answer(self, comm: MPI.Comm, rank: int) -> None:
        whose = comm.handle, rank
        before = self._answers.get(whose)
        if before is None or before.Test():  # one that does not take it needs no second one
            self._answers[whose] = comm.isend(None, rank, _HERE)


class ServerWatch:
    """A worker's watch over the server, for as long as it waits for something from it.

    Args:
        comm: The world.
        settings: The job's ``faults:`` section.
        host: The server's host.
        clock: Seconds, monotonic.
        followers: Ranks of further servers, which the first one watches over; only of their deaths
            others hear by themselves.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        settings: FaultSettings,
        host: str,
        clock: Callable[[], float] = time.monotonic,
        followers: Sequence[int] = (),
    ) -> None:
        self._comm = comm
        self._followers = followers
        self._name = f"the server (rank {SERVER} on {host})"
        self._watch = Watch(settings, 1, clock)
        self._more_s = _APART_S * comm.rank
        self._clock = clock
        self._next_s = 0.0
        self._asked_at: float | None = None
        self._question: MPI.Request | None = None

    def begin(self) -> None:
        """Begin to wait: what was asked earlier says nothing of now."""
        self._watch.asked(0)
        self._asked_at = self._clock()

    def look(self) -> None:
        """Ask the server whether it is there, from time to time while nothing comes from it.

        Raises:
            RanksLostError: No answer came for too long.
        """
        now = self._clock()
        if now < self._next_s:
            return
        self._next_s = now + _LOOK_EVERY_S
        self._watch.look()
        while self._comm.iprobe(source=SERVER, tag=_HERE):
            self._comm.recv(source=SERVER, tag=_HERE)
            self._watch.heard(0)
            self._watch.asked(0)
        patience_s = self._watch.patience_s(0)
        if now - (self._asked_at or 0.0) >= min(_ASK_EVERY_S, patience_s / _ASKS):
            self._asked_at = now
            if self._question is None or self._question.Test():
                self._question = self._comm.isend(None, SERVER, _NOTE)
        silent_s = self._watch.silent_s(0)
        if silent_s >= LAST_ONES * patience_s + self._more_s:
            raise RanksLostError(
                f"{self._name} hangs: nothing came from it for {silent_s:.1f} s "
                f"({LAST_ONES:g} times the patience of {patience_s:.3g} s)",
                hung=True,
            )

    def wait(self, done: Callable[[], bool], spin_s: float) -> None:
        """Wait until something has come from the server.

        Raises:
            RanksLostError: The server died, or hangs.
        """
        backoff = Backoff(spin_s)
        waits = False
        try:
            while not backoff.attempt(done):
                if not backoff.pause():
                    continue
                if not waits:
                    waits = True
                    self.begin()
                self.look()
        except MPI.Exception as error:
            raise self.meaning(error) from None

    def meaning(self, error: MPI.Exception) -> Exception:
        """Return what an error of MPI says about the server; itself if it says nothing."""
        if not is_death(error):
            return error
        time.sleep(_LAST_WORDS_S)
        dead = failed_ranks(self._comm)
        lost = [rank for rank in self._followers if rank in dead]
        if SERVER not in dead and not lost:
            return error
        first = min(set(range(self._comm.size)) - set(dead))
        who = self._name if SERVER in dead else f"a server (rank {lost[0]})"
        return RanksLostError(f"{who} died", told=self._comm.rank != first)


def tell_failure(comm: MPI.Comm, text: str) -> bool:
    """Tell the server of this worker's own exception, after which the worker leaves.

    Returns:
        Whether the server has taken the note.
    """
    with suppress(MPI.Exception):  # there is no server any more
        note = comm.issend(text, SERVER, _NOTE)
        deadline, backoff = time.monotonic() + _TAKEN_S, Backoff()
        while time.monotonic() < deadline:
            if note.Test():
                return True
            backoff.pause()
    return False
