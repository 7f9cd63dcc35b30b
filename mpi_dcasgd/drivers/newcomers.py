"""New processes in place of workers that died or were given up, as the server sees them.

A thread starts the process (``MPI_Comm_spawn``) and merges the two worlds: the server is rank 0 of
what comes out, the newcomer rank 1. The newcomer then sets itself up and says what it runs with,
which is compared with the server's own. All of that takes seconds, and the server trains on
meanwhile: it only looks whether something has come.

A process that dies before it has started MPI leaves the thread waiting for ever, which harms
nobody: it is given up after a while, and another thread starts the next one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from mpi_dcasgd.drivers.handshake import differences
from mpi_dcasgd.server.message import Tag

if TYPE_CHECKING:
    from mpi4py import MPI

TRIES = 3
"""Processes that are started for a worker in a row, none of which comes to ``SETTLED`` pushes."""
SETTLED = 20
"""Pushes after which a new process counts as one that works."""
CONNECT_S = 60.0
"""Seconds within which a new process has to start MPI."""
SET_UP_S = 300.0
"""Seconds within which it has to load its data and be ready to train."""
NEWCOMER = 1
"""Rank of a newcomer, where the server is rank 0."""

_LONGEST_LOOK_S = 1.0
_LEAVE_S = 10.0

OVER = "the run is over, or the worker has come back"
"""What a newcomer is told that is not needed any more."""


class Peer(NamedTuple):
    """Address of a worker: the communicator that it shares with the server, and its rank there."""

    comm: MPI.Comm
    rank: int

    @property
    def dead(self) -> bool:
        """True if MPI knows that the process has failed."""
        from mpi4py import MPI

        group = self.comm.Get_group()
        failed = self.comm.Get_failed()
        (place,) = MPI.Group.Translate_ranks(group, [self.rank], failed)
        group.Free()
        failed.Free()
        return place >= 0

    def said(self) -> Mapping[str, Any] | None:
        """Return what a newcomer says once it is ready or has failed; None until then."""
        from mpi4py import MPI

        try:
            message = self.comm.improbe(source=self.rank, tag=Tag.HELLO)
            found: Mapping[str, Any] | None = None if message is None else message.recv()
        except MPI.Exception:
            return {"error": "it died while it was setting itself up"}
        return found

    def answer(self, text: str) -> None:
        """Tell a newcomer that it is welcome (an empty text), or why not."""
        from mpi4py import MPI

        with suppress(MPI.Exception):  # it has died since, and is missed when its first push is
            self.comm.send(text, dest=self.rank, tag=Tag.HELLO)


class Arrival(NamedTuple):
    """A newcomer that is ready to train and has posted the receive for its first reply.

    Attributes:
        worker: The worker that it is.
        number: How many processes have been started in place of that worker.
        peer: Its address.
        host: Where it runs.
        device: On what.
    """

    worker: int
    number: int
    peer: Peer
    host: str
    device: str


@dataclass
class _Start:
    """A process on its way from its start to its first reply."""

    worker: int
    number: int
    since: float
    peer: Peer | None = None
    error: str = ""
    cancelled: bool = False
    thread: threading.Thread | None = field(default=None, repr=False)


class Newcomers:
    """Starts processes in place of workers that are gone, a few times for each at most.

    Args:
        start: Starts a process for a worker, the how many-th, and returns its address; on a thread
            of its own. It raises where that fails.
        facts: What the server runs with, to be compared with what a newcomer says.
        name: Name of a worker for people.
        tell: One line for people.
        clock: Seconds, monotonic.
        ended: Tells of the how many-th process for a worker whether it is known to have ended; MPI
            may not know it of a process that was started later.
    """

    def __init__(
        self,
        start: Callable[[int, int], Peer],
        facts: Mapping[str, str],
        name: Callable[[int], str],
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        ended: Callable[[int, int], bool] = lambda worker, number: False,
    ) -> None:
        self._start = start
        self._ended = ended
        self._facts = facts
        self._name = name
        self._tell = tell
        self._clock = clock
        self._last = clock()
        self._watched = 0.0
        self._starts: list[_Start] = []
        self._numbers: dict[int, int] = {}
        self._tries: dict[int, int] = {}
        self._pushes: dict[int, int] = {}
        self._hopeless = False

    @property
    def coming(self) -> bool:
        """True if a process has been started that may still be of use."""
        return any(not start.cancelled for start in self._starts)

    def replace(self, worker: int) -> None:
        """Start a process in place of a worker that is gone, unless that has failed too often."""
        tries = self._tries.get(worker, 0)
        if self._hopeless:
            return
        if tries >= TRIES:
            self._tell(
                f"{self._name(worker)} is not replaced again: of {tries} processes that were "
                f"started for it in a row, none came to {SETTLED} gradients; see their logs"
            )
            return
        self._tries[worker] = tries + 1
        number = self._numbers[worker] = self._numbers.get(worker, 0) + 1
        self._pushes.pop(worker, None)
        start = _Start(worker, number, self._watched)
        self._starts.append(start)
        self._tell(f"a new process is started in place of {self._name(worker)}")
        start.thread = threading.Thread(
            target=self._connect, args=(start,), name=f"newcomer-{worker}-{number}", daemon=True
        )
        start.thread.start()

    def heard(self, worker: int) -> None:
        """Note that a worker has pushed: a process that has often done so works."""
        if worker in self._pushes:
            self._pushes[worker] += 1
            if self._pushes[worker] >= SETTLED:
                del self._pushes[worker], self._tries[worker]

    def cancel(self, worker: int) -> None:
        """Need no new process for a worker any more, since it has come back."""
        for start in self._starts:
            if start.worker == worker:
                start.cancelled = True

    def look(self) -> list[Arrival]:
        """Return who has become ready, and deal with those that failed."""
        now = self._clock()
        # As of workers' silence: time in which the server itself was suspended does not count.
        self._watched += min(now - self._last, _LONGEST_LOOK_S)
        self._last = now
        arrivals = []
        for start in list(self._starts):
            arrival = self._look_at(start)
            if arrival is not None:
                arrivals.append(arrival)
        return arrivals

    def dismiss(self) -> None:
        """Send those home that are not ready when the run is over."""
        deadline = self._clock() + _LEAVE_S
        for start in self._starts:
            if start.thread is not None:
                start.thread.join(max(0.0, deadline - self._clock()))
            if start.peer is not None:
                start.peer.answer(OVER)
        self._starts.clear()

    def _connect(self, start: _Start) -> None:
        try:
            start.peer = self._start(start.worker, start.number)
        except Exception as error:  # whatever MPI or the launcher makes of it
            start.error = f"{type(error).__name__}: {error}"

    def _look_at(self, start: _Start) -> Arrival | None:
        passed = self._watched - start.since
        if start.error:
            self._failed(start, f"it could not be started ({start.error})")
        elif start.peer is None:
            if passed > CONNECT_S:
                self._failed(start, f"it did not come up within {CONNECT_S:g} s")
        elif (said := start.peer.said()) is not None:
            return self._greet(start, start.peer, said)
        elif self._ended(start.worker, start.number):
            self._failed(start, "it died while it was setting itself up")
        elif passed > SET_UP_S:
            self._failed(start, f"it was not ready within {SET_UP_S:g} s")
        return None

    def _greet(self, start: _Start, peer: Peer, said: Mapping[str, Any]) -> Arrival | None:
        if start.cancelled:
            self._starts.remove(start)
            peer.answer(OVER)
            return None
        if error := said.get("error"):
            self._failed(start, error)
            return None
        host = str(said["host"])
        told = [("the server", self._facts), (f"the new process ({host})", said["facts"])]
        lines = differences(told, " and ".join)
        if lines:
            self._hopeless = True  # the next one would be no other
            peer.answer("it does not belong to this run")
            self._failed(start, f"it does not belong to this run, and no other is tried:{lines}")
            return None
        self._starts.remove(start)
        peer.answer("")
        self._pushes[start.worker] = 0
        return Arrival(start.worker, start.number, peer, host, str(said["device"]))

    def _failed(self, start: _Start, reason: str) -> None:
        self._starts.remove(start)
        if start.cancelled:
            return
        self._tell(f"the new process in place of {self._name(start.worker)} failed: {reason}")
        self.replace(start.worker)


def spawn(argv: list[str], *, cwd: str, env: Mapping[str, str], host: str | None = None) -> Peer:
    """Start one process by MPI and join it; blocks until the process has started MPI and merged.

    Args:
        argv: Its command line.
        cwd: Its current folder.
        env: Variables to set, beside those of the launcher's environment.
        host: Where to start it; None to leave that to the launcher.
    """
    from mpi4py import MPI

    info = MPI.Info.Create()
    info.Set("wdir", cwd)
    info.Set("bind_to", "none")
    # The launcher does not count the dead process's place as free.
    info.Set("map_by", ":OVERSUBSCRIBE")
    if env:
        info.Set("PMIX_ENVAR", "\n".join(f"{name}={value}" for name, value in env.items()))
    if host:
        info.Set("host", host)
    # A communicator of its own: another thread may wait in a spawn for ever.
    alone = MPI.COMM_SELF.Dup()
    both = alone.Spawn(argv[0], args=argv[1:], maxprocs=1, info=info)
    info.Free()
    return Peer(both.Merge(high=False), NEWCOMER)
