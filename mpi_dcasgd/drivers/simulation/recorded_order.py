"""Recompute an asynchronous run from the record of its pushes, in one process.

The order in which gradients were applied, with which tickets and from which versions, is all that
chance decided in a run; everything else follows from the job. So the same server, given the same
pushes, comes to the same weights bit for bit, on the same kind of device.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from mpi_dcasgd.drivers.simulation.turn import take_turn
from mpi_dcasgd.learning.task import Task
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


def replay(
    server: ParameterServer,
    task: Task,
    pushes: Iterable[RecordedPush],
    fingerprints: Iterable[int] | None = None,
    told: Callable[[UpdateRecord], None] = lambda record: None,
) -> Difference | None:
    """Put the recorded pushes to a server again.

    Args:
        server: At the start of the run, with a ``RecordedLedger`` and ``ahead`` 0.
        task: Computes all workers' gradients, one after the other.
        pushes: The record, in order.
        fingerprints: What ``fingerprint`` gave for each push, if it was recorded.
        told: Called with what the server says of each push.

    Returns:
        The first difference, or None if there is none.
    """
    _check_apart(server, task)
    if isinstance(server.ledger, RecordedLedger):
        server.ledger.version = lambda: server.version
    for worker in range(server.num_workers):
        server.pull(worker)
    marks = iter(fingerprints) if fingerprints is not None else None
    for number, push in enumerate(pushes):
        slot = server.slots[push.worker]
        if slot.status != "working":
            return Difference(number, f"worker {push.worker}", "working", slot.status)
        found, answer = take_turn(server, task, push.worker, push.ticket)
        record = answer.record
        told(record)
        for what in ("version", "staleness", "action"):
            before, now = getattr(push, what), getattr(record, what)
            if before != now:
                return Difference(number, what, before, now)
        if marks is not None:
            mark, found_mark = next(marks), fingerprint(found.loss, found.norm)
            if mark != found_mark:
                return Difference(number, "the gradient's fingerprint", mark, found_mark)
    return None


def replay_order(
    server: ParameterServer,
    task: Task,
    workers: Iterable[int],
    told: Callable[[UpdateRecord], None] = lambda record: None,
) -> int:
    """Let the workers push in a recorded order, whatever the rule makes of it.

    Under the rule of the recorded run this gives that run again. Under another it answers what
    that rule would have done with the same delays: who was slow, and when, stays as it was.

    Args:
        server: At the start of a run, with a ledger of its own.
        task: Computes all workers' gradients, one after the other.
        workers: Who pushed, in order; it is gone through again if tickets are left at its end.
        told: Called with what the server says of each push.

    Returns:
        How many turns were passed over because the rule had the worker wait.
    """
    _check_apart(server, task)
    queues: list[deque[int]] = [deque() for _ in server.slots]

    def receive(ready: Sequence[int]) -> None:
        for worker in ready:
            queues[worker] += server.slots[worker].message.tickets

    for worker in range(server.num_workers):
        receive(server.pull(worker))
    passed = 0
    for worker in itertools.cycle(list(workers)):
        if server.finished:
            break
        if server.slots[worker].status != "working":
            passed += 1
            continue
        _, answer = take_turn(server, task, worker, queues[worker].popleft())
        receive(answer.ready)
        told(answer.record)
    return passed


def _check_apart(server: ParameterServer, task: Task) -> None:
    mine = task.flat.weights.data_ptr()
    if any(slot.snapshot.data_ptr() == mine for slot in server.slots):
        raise ValueError("the task's weights are a worker's snapshot, which it would overwrite")
