"""Synchronous SGD in virtual time, with or without backup workers, under the same delays.

Without backup workers a step takes as long as its slowest worker, and gives the very gradient
that Horovod would have averaged. With ``b`` of them, ``N + b`` workers compute and the first N
gradients make the step; what comes later is dropped on arrival, and its minibatch goes back to be
computed again (Chen et al., "Revisiting Distributed Synchronous SGD", 2016).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import Any

import torch

from mpi_dcasgd.drivers.cluster import Cluster, WorkerClock, crash_s, crashing
from mpi_dcasgd.drivers.observer import WorkerTotals
from mpi_dcasgd.drivers.simulator_engine import Spending
from mpi_dcasgd.drivers.stopping import StopFlag
from mpi_dcasgd.learning.task import Task
from mpi_dcasgd.server.ledger import TicketLedger
from mpi_dcasgd.server.message import Kind
from mpi_dcasgd.server.push import Push
from mpi_dcasgd.server.records import UpdateRecord
from mpi_dcasgd.server.server import ParameterServer
from mpi_dcasgd.server.state import (
    ledger_state,
    load_ledger,
    load_server_state,
    server_state,
)


class StepClock:
    """When synchronous steps are done, and by whom.

    Args:
        cluster: Decides how long everything takes. A worker that crashes comes back after its
            repair and computes its gradient anew: the group waits for it.
        num_workers: All of them, backups included.
        needed: How many gradients make a step.
        vector_bytes: What is reduced over the workers of a step.
        seed: Of the delays.

    Attributes:
        now: Virtual seconds since the start.
        spent: Where they went.
        dropped: Gradients that came too late.
        grant: Whether the worker finds something to compute; asked whenever one is free.
        hand_back: Told when a worker's gradient came too late.
    """

    def __init__(
        self, cluster: Cluster, num_workers: int, needed: int, vector_bytes: int, seed: int
    ) -> None:
        self.now = 0.0
        self.spent = Spending(num_workers)
        self.dropped = 0
        self.grant: Callable[[int], bool] = lambda worker: True
        self.hand_back: Callable[[int], None] = lambda worker: None
        self._needed = needed
        self._reduce_s = cluster.network.allreduce_s(vector_bytes, needed)
        self._cluster = cluster
        self._seed = seed
        self._clock = WorkerClock(cluster, num_workers, seed)
        self._life = [0] * num_workers
        self._death_s: list[float | None] = [None] * num_workers
        for worker in crashing(cluster, num_workers):
            self._rise(worker, 0.0)
        # (time, worker, step): the order of arrivals is total, ties go by rank.
        self._events: list[tuple[float, int, int]] = []
        self._free = list(range(num_workers))
        self._step = 0

    def step(self) -> list[int]:
        """Make one step; the workers whose gradients are in it, by rank, or none at the end."""
        self._step += 1
        free, self._free = self._free, []
        for worker in free:
            self._start(worker)
        got: list[int] = []
        while self._events and len(got) < self._needed:
            self.now, worker, step = heapq.heappop(self._events)
            self.spent.pushes[worker] += 1
            if step == self._step:
                got.append(worker)
            else:
                self.dropped += 1
                self.hand_back(worker)
                self._start(worker)
        if not got:
            return []
        self.now += self._reduce_s
        self._free = sorted(self._free + got)
        return sorted(got)

    def _start(self, worker: int) -> None:
        if not self.grant(worker):
            self._free.append(worker)  # it asks again at the next step
            return
        end = self._finish(worker, self.now)
        self.spent.compute_s[worker] += end - self.now
        heapq.heappush(self._events, (end, worker, self._step))

    def _finish(self, worker: int, begin_s: float) -> float:
        end_s = self._clock.finish(worker, begin_s)
        crashes, death_s = self._cluster.crashes, self._death_s[worker]
        while crashes is not None and death_s is not None and death_s < end_s:
            self.spent.crashes += 1
            back_s = max(begin_s, death_s + crashes.repair_s)
            death_s = self._rise(worker, death_s + crashes.repair_s)
            end_s = self._clock.finish(worker, back_s)
        return end_s

    def _rise(self, worker: int, now_s: float) -> float:
        crashes = self._cluster.crashes
        assert crashes is not None  # or there would be nobody to rise
        death_s = now_s + crash_s(crashes, self._seed, worker, self._life[worker])
        self._life[worker] += 1
        self._death_s[worker] = death_s
        return death_s

    def state_dict(self) -> dict[str, Any]:
        """Plain values from which ``load_state_dict`` goes on, bit for bit."""
        spent = {k: list(v) if isinstance(v, list) else v for k, v in vars(self.spent).items()}
        return {
            "now": self.now,
            "dropped": self.dropped,
            "life": list(self._life),
            "death_s": list(self._death_s),
            "events": [list(event) for event in self._events],
            "free": list(self._free),
            "step": self._step,
            "clock": self._clock.state_dict(),
            "spent": spent,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken, of a clock made with the same arguments."""
        self.now = saved["now"]
        self.dropped = saved["dropped"]
        self._life = list(saved["life"])
        self._death_s = list(saved["death_s"])
        self._events = [(time_s, worker, step) for time_s, worker, step in saved["events"]]
        self._free = list(saved["free"])
        self._step = saved["step"]
        self._clock.load_state_dict(saved["clock"])
        for name, value in saved["spent"].items():
            setattr(self.spent, name, list(value) if isinstance(value, list) else value)


class SynchronousSimulator:
    """A simulated synchronous run, with gradients.

    Args:
        server: With one worker, the whole group; its tickets are ``group`` times as large as the
            task's. With backup workers its ledger is replaced: a step's minibatches are then not
            known beforehand.
        task: Its plan is the server's, split; on the server's device.
        cluster: Decides how long everything takes.
        group: Gradients that make a step.
        backup: Workers beyond those.
        seed: Of the delays.
        stop: Looked at after every step.

    Attributes:
        told: Called with the record of every step. To be set before ``run``.
    """

    def __init__(
        self,
        server: ParameterServer,
        task: Task,
        cluster: Cluster,
        group: int,
        backup: int,
        seed: int,
        stop: StopFlag | None = None,
    ) -> None:
        self.server = server
        self.told: Callable[[UpdateRecord], None] = lambda record: None
        self.clock = StepClock(cluster, group + backup, group, 4 * server.layout.size, seed)
        self._task = task
        self._group = group
        self._stop = StopFlag() if stop is None else stop
        self._sum = torch.zeros_like(server.weights)
        self._samples = [0] * (group + backup)
        self._ledger: TicketLedger | None = None
        self._begun = False
        if backup:
            self._ledger = TicketLedger(task.plan.num_tickets, group + backup)
            server.ledger = TicketLedger(-(-task.plan.num_tickets // group), 1)
            self.clock.grant = self._grant
            self.clock.hand_back = self._hand_back
        else:
            self.clock.grant = lambda worker: self._part(worker) is not None

    @property
    def time_s(self) -> float:
        """Virtual seconds since the start: the clock for a ``Conductor``."""
        return self.clock.now

    @property
    def done(self) -> bool:
        return self.server.finished

    def run(self, steps: int | None = None) -> None:
        """Go on to the end, or for so many steps."""
        server = self.server
        if not self._begun:
            self._begun = True
            server.pull(0)
        made = 0
        while not server.finished and made != steps:
            made += 1
            self._make_step(self.clock.step())
            if self._stop and not server.finished:
                server.halt()
                break

    def _make_step(self, workers: list[int]) -> None:
        server, flat, slot = self.server, self._task.flat, self.server.slots[0]
        tickets = {worker: self._ticket_of(worker) for worker in workers}
        samples = sum(self._task.plan.size(ticket) for ticket in tickets.values())
        total, loss = self._sum.zero_(), 0.0
        for worker, ticket in tickets.items():
            flat.read(slot.snapshot)
            found = self._task.gradient(self._task.load(ticket))
            share = found.samples / samples
            total.add_(flat.grad, alpha=share)
            loss += found.loss * share
            self._samples[worker] += found.samples
            if self._ledger:
                self._ledger.complete(worker, ticket)
        params = total[: server.layout.num_params]
        norm = torch.linalg.vector_norm(params, dtype=torch.float64).item()
        push = Push(slot.version, slot.message.tickets[0], samples, loss, norm, total)
        server.tally.dropped = self.clock.dropped
        self.told(server.push(0, push).record)

    def _part(self, worker: int) -> int | None:
        """The worker's part of the group's present ticket."""
        message = self.server.slots[0].message
        if message.kind is not Kind.WORK:
            return None
        return self.server.plan.part(message.tickets[0], worker, self._group)

    def _ticket_of(self, worker: int) -> int:
        ticket = self._ledger.held(worker)[0] if self._ledger else self._part(worker)
        assert ticket is not None  # a worker without one computes nothing
        return ticket

    def _grant(self, worker: int) -> bool:
        assert self._ledger is not None  # or this would not have been asked
        return self._ledger.grant(worker) is not None

    def _hand_back(self, worker: int) -> None:
        assert self._ledger is not None
        self._ledger.reclaim(worker)

    def state_dict(self) -> dict[str, Any]:
        """All that the run goes on from, the server included, in plain values and tensors."""
        return {
            "server": server_state(self.server),
            "clock": self.clock.state_dict(),
            "ledger": None if self._ledger is None else ledger_state(self._ledger),
            "samples": list(self._samples),
            "begun": self._begun,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken, bit for bit.

        Raises:
            ProtocolError: It is another job's.
        """
        load_server_state(self.server, saved["server"])
        self.clock.load_state_dict(saved["clock"])
        if self._ledger is not None:
            load_ledger(self._ledger, saved["ledger"])
        self._samples = list(saved["samples"])
        self._begun = saved["begun"]

    def totals(self) -> list[WorkerTotals]:
        """Where each worker's virtual time went."""
        spent = self.clock.spent
        return [
            WorkerTotals(
                worker=worker,
                host="simulated",
                device=str(self._task.device),
                updates=spent.pushes[worker],
                samples=samples,
                compute_s=spent.compute_s[worker],
                wait_s=max(0.0, self.clock.now - spent.compute_s[worker]),
            )
            for worker, samples in enumerate(self._samples)
        ]
