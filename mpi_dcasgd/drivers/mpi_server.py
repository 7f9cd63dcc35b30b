"""Rank 0 of an asynchronous run: the server's state machine behind nonblocking MPI.

Messages are ``mail``'s; here is who is there, whose push is next, and when all is over. Each
wake-up takes all pushes that have arrived, beginning with another worker each time, so that none
of them starves.

With a fault-tolerant MPI (ULFM) the receive from a worker that died completes with an error: its
tickets are requeued, and the run continues. Any other MPI loses the whole job at that moment. A
worker that fails by an exception of its own says so before it leaves (``notes``).

A worker from which nothing comes for longer than the patience is given up like a dead one, with
any MPI. Its receive stays posted: if its push comes after all, the gradient is thrown away, since
the ticket is another's by then, and the worker is taken up again with new weights.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Collection, Mapping, Sequence
from typing import NoReturn

from mpi4py import MPI

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.drivers.attendance import Attendance
from mpi_dcasgd.drivers.backoff import CROWDED_SPIN_S, Backoff, wait_until
from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.drivers.crew import MpiCrew
from mpi_dcasgd.drivers.deaths import DEATH
from mpi_dcasgd.drivers.fault_settings import FaultSettings
from mpi_dcasgd.drivers.host_watch import HostWatch
from mpi_dcasgd.drivers.mail import Post
from mpi_dcasgd.drivers.newcomers import Peer
from mpi_dcasgd.drivers.notes import Desk
from mpi_dcasgd.drivers.orphan import launcher
from mpi_dcasgd.drivers.patience import Watch
from mpi_dcasgd.drivers.roll_call import RollCall
from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.drivers.topology import Topology
from mpi_dcasgd.drivers.transport.segment import Segment
from mpi_dcasgd.errors import (
    DcasgdError,
    LauncherLostError,
    ProtocolError,
    WorkersLostError,
)
from mpi_dcasgd.server.orders import Order, OrderKind
from mpi_dcasgd.server.passage import BrokenOffError
from mpi_dcasgd.server.push import Push
from mpi_dcasgd.server.server import ParameterServer


class ServerLoop:
    """Loop that moves messages between the workers (ranks 1 .. W) and the server's slots.

    Args:
        comm: The world of the server, which is this process, and its workers.
        server: The server; replies are sent from its slots' messages.
        conductor: Has begun; is told of every push.
        stop: Checked after every wake-up.
        spin_s: Seconds that a wait polls before it sleeps.
        accounts: One a worker, to add to; new ones if None.
        faults: When a worker is given up.
        shared: Memory that workers have in common with the server, by worker; the others' vectors
            travel in messages.
        crew: Other servers that share the model, which this one leads.
        chunked: Workers whose messages come and go in chunks, at the server's cuts, and so do those
            of processes that take workers' places; None for all.

    Attributes:
        accounts: Where the workers' time goes, as their pushes say.
        busy_s: Seconds so far in which pushes were applied.
        roll: Which workers are gone.
        desk: Answers workers that ask whether anybody is there.
        attendance: Deals with workers that go and come; starts others in their place, if that is
            wanted.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        server: ParameterServer,
        conductor: Conductor,
        stop: StopFlag,
        spin_s: float = CROWDED_SPIN_S,
        accounts: Sequence[Account] | None = None,
        faults: FaultSettings | None = None,
        shared: Mapping[int, Segment] | None = None,
        crew: MpiCrew | None = None,
        chunked: Collection[int] | None = None,
    ) -> None:
        self._comm = comm
        self._crew = crew
        servers = crew.num_servers if crew else 1
        self._world = Topology("asynchronous", server.num_workers, servers)
        self._spin_s = spin_s
        self._server = server
        self._conductor = conductor
        self._stop = stop
        self._first = 0
        if accounts is None:
            accounts = [Account(worker=worker) for worker in range(server.num_workers)]
        self.accounts = accounts
        self.busy_s = 0.0
        self.roll = RollCall(self._world, accounts, conductor)
        slots, wire, name, cuts = server.slots, server.wire, self.roll.name, server.cuts
        self._post = Post(comm, self._world, slots, wire, shared or {}, name, cuts, chunked)
        self.desk = Desk([*self._post.peers, *crew.peers] if crew else self._post.peers)
        self._watch = Watch(faults or FaultSettings(), server.num_workers)
        hosts = [account.host for account in accounts]
        self._host_watch = HostWatch(hosts, socket.gethostname(), self._watch, conductor.message)
        self.attendance = Attendance(
            server, conductor, stop, self._post, crew, self._watch, accounts, self.roll, self._reply
        )

    def run(self) -> None:
        """Serve until every worker has been told to stop, or is gone.

        Raises:
            WorkersLostError: All workers are gone before training was over.
            LauncherLostError: The launcher is; the state is saved, and MPI must not be called.
        """
        server = self._server
        for worker in range(server.num_workers):
            self._reply(server.pull(worker))
        backoff = Backoff(self._spin_s)
        halted = False
        launcher.outlive_launcher()
        while not server.finished or self.attendance.waits_for_newcomers(halted=halted):
            if launcher.gone:
                self._orphaned()
            arrived = self._arrivals(backoff)
            for worker in self._in_turn(arrived):
                self._take(worker)
            if self._stop and not halted:
                halted = True
                self._watch.hurry()
                self._conductor.stopping()
                self._reply(server.halt())
            for failure in self.desk.failures():
                self.attendance.fail(failure.worker, failure.text)
            if self._host_watch.save_now():
                self._conductor.stopping()
            answered = self._crew is None or self._crew.watch()
            for worker in self._watch.look() if answered else ():
                self.attendance.lose_patience(worker, halted=halted)
            for arrival in self.attendance.arrivals():
                self.attendance.welcome(arrival)
            if arrived:
                backoff.reset()
            else:
                self._conductor.poll()
                backoff.pause()
        if not halted and not any(slot.status == "stopped" for slot in server.slots):
            self._conductor.stopping(wait=True)
            raise WorkersLostError(f"no worker is left: {self.roll.why_all()}")
        self._finish_sends()

    def close(self) -> None:
        """Free the MPI requests, those of a run that failed, too."""
        self._post.close(self.roll.hung)

    def present(self) -> list[Peer]:
        """Return the addresses of the workers that have neither died nor hang."""
        return [self._post.peers[worker] for worker in self.roll.present]

    def _arrivals(self, backoff: Backoff) -> list[int]:
        """Return the workers whose pushes have arrived; handle those that died meanwhile."""
        if self.attendance.newcomers and not self._post.awaited:
            return []  # all are gone, and a new one is on its way
        try:
            arrived = backoff.attempt(self._look)
        except MPI.Exception as error:
            if error.Get_error_class() not in DEATH:
                raise
            self._post.check_truncated()
            return self._arrivals_beside_failures()
        if arrived is None:
            raise DcasgdError("the server is waiting for pushes, but no worker owes it one")
        return arrived

    def _look(self) -> list[int] | None:
        """Return whose pushes have arrived, at all servers; None if nobody owes one."""
        arrived = self._post.look()
        return self._crew.whole(arrived) if self._crew else arrived

    def _orphaned(self) -> NoReturn:
        """Save what can be saved without MPI, which must not be called any more."""
        if self._crew:
            raise LauncherLostError(
                "mpirun was killed or has lost a host; the other servers are out of reach, so the "
                "newest checkpoint is what is left"
            )
        self._conductor.stopping(wait=True)
        raise LauncherLostError("mpirun was killed or has lost a host; the state is saved")

    def _arrivals_beside_failures(self) -> list[int]:
        self.attendance.lose_the_dead()
        arrived = self._post.look_beside_failures()
        return self._crew.whole(arrived) or [] if self._crew else arrived

    def _in_turn(self, arrived: Sequence[int]) -> list[int]:
        count = self._server.num_workers
        self._first = (self._first + 1) % count
        return sorted(arrived, key=lambda worker: (worker - self._first) % count)

    def _take(self, worker: int) -> None:
        """Apply a push, and answer it; one that breaks off comes again when all of it is here."""
        box = self._post.boxes[worker]
        if box.missing and worker in self.roll.hung:
            box.disturbed = True  # it is taken back when all of its push is here
            return
        # The reply that this push answers must be out of its buffer, which is written again now.
        wait_until(box.answered, self._spin_s)
        self._watch.heard(worker)
        if worker in self.roll.hung:
            self.attendance.take_back(worker)
            return
        self.attendance.heard(worker)
        message, server = box.push, self._server
        intake = self._post.passage(worker, self._spin_s, certain=server.goes_on(worker))
        began = time.perf_counter()
        try:
            answer = server.push(worker, Push.of(message), intake)
        except ProtocolError as error:
            raise ProtocolError(f"{self.roll.name(worker)}: {error}") from None
        except BrokenOffError:
            self._put_back(worker, died=intake is not None and intake.died)
            return
        self.busy_s += time.perf_counter() - began - (intake.waited_s if intake else 0.0)
        self._post.taken(worker)
        if worker not in answer.ready:
            box.put_back()
        compute_ns, wait_ns, data_ns = message.spent_ns
        self.accounts[worker].add(
            message.samples,
            compute_s=compute_ns / 1e9,
            wait_s=wait_ns / 1e9,
            data_s=data_ns / 1e9,
        )
        if self.attendance.newcomers:
            self.attendance.newcomers.heard(worker)
        self._reply(answer.ready)
        self._conductor.after(answer.record)

    def _put_back(self, worker: int, *, died: bool) -> None:
        """Go on without a push that has broken off, and has changed nothing."""
        self._post.put_back(worker)
        self._watch.asked(worker)
        if died:
            self.attendance.lose_the_dead()

    def _reply(self, workers: Sequence[int]) -> None:
        for worker in workers:
            slot, box = self._server.slots[worker], self._post.boxes[worker]
            if slot.status == "working":
                if self.attendance.begins_afresh(worker):
                    slot.message.make_afresh()
                box.ask()
                self._watch.asked(worker)
            if self._crew:
                more = slot.status == "working"
                kind = OrderKind.REPLY if more else OrderKind.LAST_REPLY
                self._crew.tell(Order(kind, worker))
            box.answer()

    def _finish_sends(self) -> None:
        """Wait until everybody has been told to stop who has not hung since its last push."""
        self._watch.hurry()
        waiting = [w for w, slot in enumerate(self._server.slots) if slot.status != "lost"]
        for worker in waiting:
            self._watch.asked(worker)
        backoff = Backoff(self._spin_s)
        while True:
            waiting = [worker for worker in waiting if not self._post.boxes[worker].answered()]
            if not waiting:
                return
            for worker in set(self._watch.look()) & set(waiting):
                self.roll.hangs(
                    worker, (), self._watch.silent_s(worker), self._watch.patience_s(worker)
                )
                waiting.remove(worker)
            self.desk.look()
            if self._crew:
                self._crew.move()
            backoff.pause()
