"""Workers that leave the server and come to it: deaths, failures, silence, returns, newcomers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.drivers.crew import MpiCrew
from mpi_dcasgd.drivers.mail import Post
from mpi_dcasgd.drivers.newcomers import Arrival, Newcomers
from mpi_dcasgd.drivers.patience import LAST_ONES, Watch
from mpi_dcasgd.drivers.roll_call import RollCall
from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.errors import DcasgdError, WorkersFailedError
from mpi_dcasgd.server.server import ParameterServer


class Attendance:
    """What the server does about each worker that goes or comes.

    Args:
        server: The server; it loses workers, and gets them back.
        conductor: Of the run.
        stop: Whether the run is to stop: nobody is replaced any more.
        post: The server's messages.
        crew: Other servers that share the model; None if there are none.
        watch: When a worker is given up.
        accounts: Where the workers are, one a worker.
        roll: Which workers are gone.
        reply: Sends the replies of workers that have one.

    Attributes:
        newcomers: Start processes in place of workers that are gone, if that is wanted.
    """

    def __init__(
        self,
        server: ParameterServer,
        conductor: Conductor,
        stop: StopFlag,
        post: Post,
        crew: MpiCrew | None,
        watch: Watch,
        accounts: Sequence[Account],
        roll: RollCall,
        reply: Callable[[Sequence[int]], None],
    ) -> None:
        self.newcomers: Newcomers | None = None
        self._server = server
        self._conductor = conductor
        self._stop = stop
        self._post = post
        self._crew = crew
        self._watch = watch
        self._accounts = accounts
        self._roll = roll
        self._reply = reply
        self._afresh = [False] * server.num_workers  # who has tickets that are others' by now
        self._last_ones: set[int] = set()  # silent, and told, but there is no one else

    def lose_the_dead(self) -> None:
        """Go on without the workers that MPI reports as dead.

        Raises:
            DcasgdError: It reports none.
        """
        dead = [worker for worker, peer in enumerate(self._post.peers) if peer.dead]
        if not dead:
            raise DcasgdError("a receive failed, but MPI reports no dead process")
        for worker in dead:
            self._post.abandon(worker)
            if self._crew:
                self._crew.forget(worker)
            if self._server.slots[worker].status != "lost":
                self._lose(worker, partial(self._roll.died, worker))
            elif worker in self._roll.hung:
                self._roll.died(worker, ())

    def fail(self, worker: int, text: str) -> None:
        """Go on without a worker whose own exception ended it, if that can help.

        Args:
            worker: The worker, which may have been given up already.
            text: Its exception.

        Raises:
            WorkersFailedError: The next one would fail likewise; the state is saved.
        """
        if self._server.slots[worker].status == "lost":
            self._roll.failed(worker, text, ())
        else:
            self._lose(worker, partial(self._roll.failed, worker, text))
        if self._roll.repeated:
            self._conductor.stopping(wait=True)
            raise WorkersFailedError(self._roll.repeated)

    def lose_patience(self, worker: int, *, halted: bool) -> None:
        """Give a worker up, unless nobody would be left who could take its tickets.

        Args:
            worker: Nothing has come from it for longer than the patience.
            halted: Whether no more tickets are granted.
        """
        silent_s, patience_s = self._watch.silent_s(worker), self._watch.patience_s(worker)
        others = any(
            slot.status not in ("lost", "stopped")
            for other, slot in enumerate(self._server.slots)
            if other != worker and other not in self._last_ones
        )
        if not others and not halted and silent_s < LAST_ONES * patience_s:
            if worker not in self._last_ones:
                self._last_ones.add(worker)
                self._roll.silent(worker, silent_s)
            return
        told = partial(self._roll.hangs, worker, silent_s=silent_s, patience_s=patience_s)
        self._lose(worker, told)

    def take_back(self, worker: int) -> None:
        """Take up a worker again that was given up too early: its push has come.

        Args:
            worker: The worker.
        """
        if self.newcomers:
            self.newcomers.cancel(worker)
        self._afresh[worker] = True
        ready = self._server.rejoin(worker)
        self._roll.back(worker)
        self._reply(ready)

    def waits_for_newcomers(self, *, halted: bool) -> bool:
        """Tell whether all workers are gone before the end, and new ones are on their way.

        Args:
            halted: Whether no more tickets are granted.
        """
        going_on = not halted and not self._server.complete
        return going_on and self.newcomers is not None and self.newcomers.coming

    def arrivals(self) -> list[Arrival]:
        """Return the processes that have come to take a worker's place."""
        return self.newcomers.look() if self.newcomers else []

    def welcome(self, arrival: Arrival) -> None:
        """Give a new process the place of a worker that is gone, and work.

        Args:
            arrival: The process, and whose place it takes.
        """
        worker = arrival.worker
        may_speak = worker in self._roll.hung or self._post.boxes[worker].owed
        self._post.renew(worker, arrival.peer, keep=may_speak)
        self._afresh[worker] = False
        self._watch.renew(worker)
        self._accounts[worker].host, self._accounts[worker].device = arrival.host, arrival.device
        ready = self._server.rejoin(worker)
        self._roll.replaced(worker, arrival.number, arrival.host)
        self._reply(ready)

    def heard(self, worker: int) -> None:
        """Note that a worker has delivered that may have been silent for long.

        Args:
            worker: The worker, which has not been given up.
        """
        if worker in self._last_ones:
            self._last_ones.discard(worker)
            self._roll.speaks(worker)

    def begins_afresh(self, worker: int) -> bool:
        """Return, once, whether what a worker holds is others' by now.

        Args:
            worker: It is about to be sent work.
        """
        afresh, self._afresh[worker] = self._afresh[worker], False
        return afresh

    def _lose(self, worker: int, tell: Callable[[Sequence[int]], None]) -> None:
        self._watch.forget(worker)
        tickets = self._server.ledger.held(worker)
        ready = self._server.lose(worker)
        tell(tickets)
        self._reply(ready)
        if self.newcomers and not self._stop and not self._server.complete:
            self.newcomers.replace(worker)
