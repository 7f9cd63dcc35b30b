"""Recompute an asynchronous run from the record of its pushes, in one process.

The order in which gradients were applied, with which tickets and from which versions, is all that
chance decided in a run; everything else follows from the job. So the same server, given the same
pushes, comes to the same weights bit for bit, on the same kind of device.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.drivers.simulation.turn import Deliver, drop_turn, take_turn
from mpi_dcasgd.learning.learner import Learner
from mpi_dcasgd.server.ledger import TicketLedger
from mpi_dcasgd.server.records import Action, UpdateRecord, fingerprint
from mpi_dcasgd.server.server import ParameterServer


class RecordedPush(Protocol):
    """One push as a trace tells it (``record.trace.TraceRecord``)."""

    @property
    def worker(self) -> int: ...
    @property
    def ticket(self) -> int: ...
    @property
    def version(self) -> int: ...
    @property
    def staleness(self) -> int: ...
    @property
    def action(self) -> Action: ...


class Difference(NamedTuple):
    """First push in which a replay departs from its record.

    Attributes:
        number: Of the push, from 0.
        what: Which fact differs.
        recorded, replayed: Its two values.
    """

    number: int
    what: str
    recorded: object
    replayed: object

    def __str__(self) -> str:
        return f"push {self.number}: {self.what} was {self.recorded}, is {self.replayed}"


class RecordedLedger(TicketLedger):
    """Grants each worker the tickets that it delivered, at the version that it pulled.

    Why a worker got a ticket (it was next, it came back from one that died, it had waited) does
    not have to be known: the record says what it delivered, and from which version.

    Args:
        pushes: The record.
        num_workers: Of the run.
        finished: Whether the recorded run came to its own end.
    """

    def __init__(self, pushes: Sequence[RecordedPush], num_workers: int, *, finished: bool) -> None:
        super().__init__(len(pushes), num_workers)
        self._finished = finished
        self._due: list[deque[tuple[int, int]]] = [deque() for _ in range(num_workers)]
        for push in pushes:
            self._due[push.worker].append((push.ticket, push.version - push.staleness))
        self.version: Callable[[], int] = lambda: 0

    @property
    def done(self) -> bool:
        # A run that was cut off had gradients to come; its server had not closed its books.
        return self._finished and super().done

    def grant(self, worker: int) -> int | None:
        due = self._due[worker]
        if not due or self.version() < due[0][1]:
            return None
        ticket, _ = due.popleft()
        self._held[worker].append(ticket)
        return ticket

    def hand_back(self, worker: int, ticket: int) -> None:
        # Whoever computed it again has a record of its own.
        self.complete(worker, ticket)

    def drop(self, worker: int, ticket: int) -> None:
        self.complete(worker, ticket)


def replay(
    server: ParameterServer,
    learner: Learner,
    pushes: Iterable[RecordedPush],
    fingerprints: Iterable[int] | None = None,
    told: Callable[[UpdateRecord], None] = lambda record: None,
    *,
    deliver: Deliver = ParameterServer.push,
    simulated: bool = False,
) -> Difference | None:
    """Put the recorded pushes to a server again.

    Args:
        server: At the start of the run, with a ``RecordedLedger`` and ``ahead`` 0.
        learner: Computes all workers' gradients, one after the other.
        pushes: The record, in order.
        fingerprints: What ``fingerprint`` gave for each push, if it was recorded.
        told: Called with what the server says of each push.
        deliver: Hands each push to the server.
        simulated: It is a simulator's record: what would be dropped was not computed.

    Returns:
        The first difference, or None if there is none.
    """
    _check_apart(server, learner)
    if isinstance(server.ledger, RecordedLedger):
        server.ledger.version = lambda: server.version
    for worker in range(server.num_workers):
        server.pull(worker)
    pushes = list(pushes)
    learner.expect(push.ticket for push in pushes)
    marks = iter(fingerprints) if fingerprints is not None else None
    for number, push in enumerate(pushes):
        slot = server.slots[push.worker]
        if slot.status != "working":
            return Difference(number, f"worker {push.worker}", "working", slot.status)
        turn = server, learner, push.worker, push.ticket
        if simulated and server.drops(push.worker):
            record = drop_turn(*turn, deliver).record
            loss, norm = record.loss, record.grad_norm
        else:
            (_, _, loss, norm, _), answer = take_turn(*turn, deliver)
            record = answer.record
        told(record)
        for what in ("version", "staleness", "action"):
            before, now = getattr(push, what), getattr(record, what)
            if before != now:
                return Difference(number, what, before, now)
        if marks is not None:
            mark, found_mark = next(marks), fingerprint(loss, norm)
            if mark != found_mark:
                return Difference(number, "the gradient's fingerprint", mark, found_mark)
    return None


class OrderReplay:
    """A run in a recorded order of pushes, whatever the rule makes of it.

    Under the rule of the recorded run this gives that run again. Under another it answers what
    that rule would have done with the same delays: who was slow, and when, stays as it was.

    Args:
        server: At the start of a run, with a ledger of its own.
        learner: Computes all workers' gradients, one after the other.
        workers: Who pushed, in order; it is gone through again if tickets are left at its end.
        times_s: When they did; beyond its end time advances at the mean pace.

    Attributes:
        told: Called with what the server says of each push.
        passed: Turns that were passed over because the rule had the worker wait.
        time_s: When the last push was, in seconds since the start.

    Raises:
        ValueError: The learner's weights are a worker's snapshot.
    """

    def __init__(
        self,
        server: ParameterServer,
        learner: Learner,
        workers: Sequence[int],
        times_s: Sequence[float] = (),
    ) -> None:
        _check_apart(server, learner)
        self.told: Callable[[UpdateRecord], None] = lambda record: None
        self.passed = 0
        self.time_s = 0.0
        self._server = server
        self._learner = learner
        self._workers = workers
        self._times_s = times_s
        self._pace_s = times_s[-1] / len(times_s) if times_s else 0.0
        self._queues: list[deque[int]] = [deque() for _ in server.slots]
        self._turn = self._pushes = 0
        self._begun = False

    @property
    def done(self) -> bool:
        """True if no worker has anything left to do."""
        return self._server.finished or not self._workers

    def run(self, pushes: int | None = None) -> None:
        """Go on to the end, or for so many pushes."""
        server = self._server
        if not self._begun:
            self._begun = True
            for worker in range(server.num_workers):
                self._receive(server.pull(worker))
        end = None if pushes is None else self._pushes + pushes
        while not self.done and self._pushes != end:
            worker = self._workers[self._turn % len(self._workers)]
            self._turn += 1
            if server.slots[worker].status != "working":
                self.passed += 1
                continue
            _, answer = take_turn(server, self._learner, worker, self._queues[worker].popleft())
            self._receive(answer.ready)
            known = self._pushes < len(self._times_s)
            self.time_s = self._times_s[self._pushes] if known else self.time_s + self._pace_s
            self._pushes += 1
            self.told(answer.record)

    def accounts(self) -> list[Account]:
        """Return nothing: nobody spent the recorded time on this."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Complete state to resume from, the server included, in plain values and tensors."""
        return {
            "server": self._server.state_dict(),
            "queues": [list(queue) for queue in self._queues],
            "passed": self.passed,
            "time_s": self.time_s,
            "turn": self._turn,
            "pushes": self._pushes,
            "begun": self._begun,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken, bit for bit.

        Raises:
            ProtocolError: It is another job's.
        """
        self._server.load_state_dict(saved["server"])
        self._queues = [deque(tickets) for tickets in saved["queues"]]
        self.passed, self.time_s = saved["passed"], saved["time_s"]
        self._turn, self._pushes = saved["turn"], saved["pushes"]
        self._begun = saved["begun"]

    def _receive(self, ready: Sequence[int]) -> None:
        for worker in ready:
            tickets = self._server.slots[worker].message.tickets
            self._queues[worker] += tickets
            self._learner.expect(tickets)


def _check_apart(server: ParameterServer, learner: Learner) -> None:
    mine = learner.flat.weights.data_ptr()
    if any(slot.snapshot.data_ptr() == mine for slot in server.slots):
        raise ValueError("the learner's weights are a worker's snapshot, which it would overwrite")
