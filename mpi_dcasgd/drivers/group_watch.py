"""Watch over a synchronous group: the rank that lets the others wait is found and named.

In an allreduce everybody waits for the slowest, and nobody sees who that is. So a thread beside
training looks at how long the present step has taken. When that is longer than the patience
(``patience``), it asks the threads of all other ranks what they are at: those that do not answer
hang as a whole, those that answer and are not waiting hang within their own computation.

Between steps rank 0 evaluates and saves, and the others wait for it. Each batch that it evaluates
is a sign of life; it is held to hang when none came for ten times the patience.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mpi_dcasgd.drivers.fault_settings import FaultSettings
from mpi_dcasgd.drivers.patience import LAST_ONES, Watch
from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.server.message import Tag

if TYPE_CHECKING:
    from mpi4py import MPI

_LOOK_EVERY_S = 0.1
_ANSWER_S = 1.0
"""Seconds in which a rank that is alive answers."""

_ASK, _ANSWER, _FOUND, _TOLD = Tag.ASK, Tag.ANSWER, Tag.FOUND, Tag.TOLD
_COMPUTES, _WAITS, _BETWEEN = range(3)  # states of a rank


class GroupWatch:
    """Thread of one rank of the group; its methods are called by the thread that trains.

    Args:
        comm: The group, on a communicator of its own; MPI must allow calls from several threads.
        settings: The job's ``faults:`` section.
        names: Name of each rank, for people.
        stop: Has everybody be less patient.
        found: Called on the thread of the lowest rank that answers, with a line for people and
            the names of the ranks that hang. It ends the process, and the world.

    Attributes:
        told: Whether this rank or another one tells of a rank that hangs, and ends the world.
        lock: Held by the training thread while it changes the server, and by the watch from the
            moment at which it has found somebody.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        settings: FaultSettings,
        names: Sequence[str],
        stop: StopFlag,
        found: Callable[[str, Sequence[str]], None],
    ) -> None:
        self.lock = threading.Lock()
        self._comm = comm
        self._names = names
        self._stop = stop
        self._found = found
        self._watch = Watch(settings, 1)
        self._between = Watch(settings, 1)  # since the last step, or the last sign of life
        self._state = _BETWEEN
        self.told = False
        self._sent: list[Any] = []  # memory of what is on its way
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def step(self) -> None:
        """A step begins with this rank's own computation."""
        self._state = _COMPUTES
        self._between.heard(0)
        self._watch.asked(0)

    def waits(self) -> None:
        """This rank has computed its share, and waits for the others."""
        self._state = _WAITS

    def stepped(self) -> None:
        """The step is over, on all ranks."""
        self._state = _BETWEEN
        self._watch.heard(0)
        self._between.asked(0)

    def alive(self) -> None:
        """Give a sign of life between steps; any thread may."""
        if self._state == _BETWEEN:
            self._between.asked(0)

    def ends(self) -> None:
        """Training is over: this rank waits for the others, to compare and then to leave."""
        self.step()
        self.waits()

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        from mpi_dcasgd.drivers.deaths import is_death

        try:
            self._look()
        except Exception as error:
            if not is_death(error):  # which the training thread finds out, too
                raise

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_EVERY_S):
            if self._stop:
                self._watch.hurry()
            self._between.look()
            self._answer()
            if self._watch.look() and not self.told:
                self._ask()

    def _answer(self) -> None:
        """Tell those who ask what this rank is at, and take over what another one has found."""
        from mpi4py import MPI

        comm, status = self._comm, MPI.Status()
        while comm.Iprobe(MPI.ANY_SOURCE, _ASK, status):
            word = np.zeros(1, np.int64)
            comm.Recv(word, status.source, _ASK)
            self._send(np.array([self._own_state()], np.int64), status.source, _ANSWER)
        self.told = self.told or comm.Iprobe(MPI.ANY_SOURCE, _TOLD)
        while comm.Iprobe(MPI.ANY_SOURCE, _FOUND, status):
            words = self._finding([], 0.0)
            comm.Recv(words, status.source, _FOUND)
            self._tell(list(np.flatnonzero(words[:-1])), float(words[-1]) / 1000)

    def _own_state(self) -> int:
        between = self._between
        if between.silent_s(0) >= LAST_ONES * between.patience_s(0):
            return _COMPUTES
        return self._state

    def _ask(self) -> None:
        """Find out who hangs, and have the lowest rank that does not tell it."""
        from mpi4py import MPI

        comm = self._comm
        others = [rank for rank in range(comm.size) if rank != comm.rank]
        for rank in others:
            self._send(np.zeros(1, np.int64), rank, _ASK)
        answers = {comm.rank: self._own_state()}
        deadline, status = time.monotonic() + _ANSWER_S, MPI.Status()
        while len(answers) < comm.size and time.monotonic() < deadline:
            if self._ended.is_set():
                break
            self._answer()
            while comm.Iprobe(MPI.ANY_SOURCE, _ANSWER, status):
                word = np.zeros(1, np.int64)
                comm.Recv(word, status.source, _ANSWER)
                answers[status.source] = int(word[0])
            time.sleep(0.01)
        # The step may have ended meanwhile, or another rank been first. And where training is over
        # others may have closed already: no wonder that they do not answer.
        if self.told or self._ended.is_set() or not self._watch.look_again(0):
            return
        if _BETWEEN in answers.values():  # it is at work for all of them: have patience again
            self._watch.asked(0)
            return
        hung = [rank for rank in range(comm.size) if answers.get(rank) != _WAITS]
        silent_s = self._watch.silent_s(0)
        first = min(answers)  # whose thread can tell, even if it is what hangs otherwise
        if first == comm.rank:
            self._tell(hung, silent_s)
        self.told = True
        self._send(self._finding(hung, silent_s), first, _FOUND)

    def _finding(self, hung: Sequence[int], silent_s: float) -> Any:
        """Return what is sent of a finding: a word for each rank, then milliseconds."""
        words = np.zeros(self._comm.size, np.int64)
        words[list(hung)] = 1
        return np.append(words, int(silent_s * 1000))

    def _tell(self, hung: Sequence[int], silent_s: float) -> None:
        names = [self._names[rank] for rank in hung]
        who = f"{', '.join(names)} hang{'s' if len(names) == 1 else ''}" if names else "MPI hangs"
        text = f"{who}: the others have waited for {silent_s:.1f} s for their step to end"
        if self._comm.rank in hung and self._state == _BETWEEN:
            silent_s = self._between.silent_s(0)
            text = f"{who} while it evaluates or saves: no sign of life for {silent_s:.1f} s"
        for rank in set(range(self._comm.size)) - {self._comm.rank}:
            self._send(np.zeros(1, np.int64), rank, _TOLD)
        self.lock.acquire()  # to the end of the process: nothing is changed any more
        self._found(text, [f"{name} hangs" for name in names])

    def _send(self, words: Any, rank: int, tag: int) -> None:
        # Whether the other rank takes it is what is asked, so nobody waits for that.
        self._sent.append((self._comm.Isend(words, rank, tag), words))


class NoWatch:
    """Watch over a group that there is none over, with the same methods."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def step(self) -> None:
        """Do nothing."""

    def waits(self) -> None:
        """Do nothing."""

    def stepped(self) -> None:
        """Do nothing."""
