"""Rank 0 of an asynchronous run: the server's state machine behind nonblocking MPI.

Each worker has one persistent receive and one persistent send, created once. The receive for a
worker's next push is started before its reply goes out, so a push always finds a receive posted.
Each wake-up takes all pushes that have arrived, beginning with another worker each time, so that
none of them starves.

With a fault-tolerant MPI (ULFM) the receive from a worker that died completes with an error: its
tickets are requeued, and the run continues. Any other MPI loses the whole job at that moment.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpi4py import MPI

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.drivers.backoff import CROWDED_SPIN_S, Backoff, wait_until
from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.drivers.topology import Topology
from mpi_dcasgd.errors import DcasgdError, WorkersLostError
from mpi_dcasgd.server.message import Message, Tag
from mpi_dcasgd.server.push import Push
from mpi_dcasgd.server.server import ParameterServer

_DEATH = (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING, MPI.ERR_IN_STATUS)
"""Errors by which ULFM reports a dead peer, directly or as one request's status among several."""


class ServerLoop:
    """Loop that moves messages between the workers (ranks 1 .. W) and the server's slots.

    Args:
        comm: The world of the server, which is this process, and its workers.
        server: The server; replies are sent from its slots' messages.
        conductor: Has begun; is told of every push.
        stop: Checked after every wake-up.
        spin_s: Seconds that a wait polls before it sleeps.
        accounts: One a worker, to add to; new ones if None.

    Attributes:
        accounts: Where the workers' time goes, as their pushes say.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        server: ParameterServer,
        conductor: Conductor,
        stop: StopFlag,
        spin_s: float = CROWDED_SPIN_S,
        accounts: Sequence[Account] | None = None,
    ) -> None:
        self._comm = comm
        self._world = Topology("asynchronous", server.num_workers)
        self._spin_s = spin_s
        self._server = server
        self._conductor = conductor
        self._stop = stop
        self._inbox = [Message(server.layout.size) for _ in server.slots]
        self._receives = [
            comm.Recv_init(message.raw, source=self._world.rank_of(worker), tag=Tag.PUSH)
            for worker, message in enumerate(self._inbox)
        ]
        self._sends = [
            comm.Send_init(slot.message.raw, dest=self._world.rank_of(worker), tag=Tag.REPLY)
            for worker, slot in enumerate(server.slots)
        ]
        self._first = 0
        # Whose push is being waited for: those whose receive is started.
        self._owed = [False] * server.num_workers
        if accounts is None:
            accounts = [Account(worker=worker) for worker in range(server.num_workers)]
        self.accounts = accounts

    def run(self) -> None:
        """Serve until every worker has been told to stop.

        Raises:
            WorkersLostError: All workers died before training was over.
        """
        server = self._server
        for worker in range(server.num_workers):
            self._reply(server.pull(worker))
        backoff = Backoff(self._spin_s)
        halted = False
        while not server.finished:
            arrived = self._arrivals()
            for worker in self._in_turn(arrived):
                self._take(worker)
            if self._stop and not halted:
                halted = True
                self._reply(server.halt())
            if arrived:
                backoff.reset()
            else:
                self._conductor.poll()
                backoff.pause()
        if not any(slot.status == "stopped" for slot in server.slots):
            raise WorkersLostError("no worker is left: all died before training was over")
        for send, slot in zip(self._sends, server.slots, strict=True):
            if slot.status != "lost":
                wait_until(send.Test, self._spin_s)

    def close(self) -> None:
        """Free the MPI requests, those of a run that failed, too."""
        for receive, owed in zip(self._receives, self._owed, strict=True):
            if owed:
                receive.Cancel()  # or a push could still come in, into memory that is others'
        for request in (*self._receives, *self._sends):
            request.Free()

    def _arrivals(self) -> list[int]:
        """Return the workers whose pushes have arrived; handle those that died meanwhile."""
        try:
            arrived = MPI.Request.Testsome(self._receives)
        except MPI.Exception as error:
            if error.Get_error_class() not in _DEATH:
                raise
            arrived = self._arrivals_beside_failures()
        if arrived is None:
            raise DcasgdError("the server is waiting for pushes, but no worker owes it one")
        for worker in arrived:
            self._owed[worker] = False
        return arrived

    def _arrivals_beside_failures(self) -> list[int]:
        failed = self._comm.Get_failed()
        ranks = list(self._world.worker_ranks)
        places = MPI.Group.Translate_ranks(self._comm.group, ranks, failed)
        dead = [worker for worker, place in enumerate(places) if place >= 0]
        if not dead:
            raise DcasgdError("a receive failed, but MPI reports no dead process")
        for worker in dead:
            if self._server.slots[worker].status != "lost":
                self._lose(worker)
        # Testsome that raised may have completed others, whose persistent requests are inactive
        # now and test true.
        return [w for w, owed in enumerate(self._owed) if owed and self._receives[w].Test()]

    def _lose(self, worker: int) -> None:
        self._owed[worker] = False
        tickets = self._server.ledger.held(worker)
        ready = self._server.lose(worker)
        self._conductor.message(
            f"worker {worker} (rank {self._world.rank_of(worker)}) died; its tickets "
            f"{list(tickets)} are requeued, "
            f"{self._alive()} of {self._server.num_workers} workers are left"
        )
        self._reply(ready)

    def _alive(self) -> int:
        return sum(slot.status != "lost" for slot in self._server.slots)

    def _in_turn(self, arrived: Sequence[int]) -> list[int]:
        self._first = (self._first + 1) % len(self._receives)
        count = len(self._receives)
        return sorted(arrived, key=lambda worker: (worker - self._first) % count)

    def _take(self, worker: int) -> None:
        # The reply that this push answers must be out of its buffer, which is written again now.
        wait_until(self._sends[worker].Test, self._spin_s)
        message = self._inbox[worker]
        compute_ns, wait_ns, data_ns = message.spent_ns
        self.accounts[worker].add(
            message.samples,
            compute_s=compute_ns / 1e9,
            wait_s=wait_ns / 1e9,
            data_s=data_ns / 1e9,
        )
        answer = self._server.push(worker, Push.of(message))
        self._reply(answer.ready)
        self._conductor.after(answer.record)

    def _reply(self, workers: Sequence[int]) -> None:
        for worker in workers:
            if self._server.slots[worker].status == "working":
                self._receives[worker].Start()
                self._owed[worker] = True
            self._sends[worker].Start()
