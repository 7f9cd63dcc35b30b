"""Synchronous SGD in virtual time, with or without backup workers, under the same delays.

Without backup workers a step gives the very gradient that Horovod would have averaged. With them
a minibatch whose gradient came too late goes back to be computed again, so that an epoch still uses
every sample once (``step_clock.py`` says what takes how long).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.drivers.simulation.cluster import Cluster
from mpi_dcasgd.drivers.simulation.step_clock import StepClock
from mpi_dcasgd.learning.learner import Learner
from mpi_dcasgd.pages import zeros
from mpi_dcasgd.server.ledger import TicketLedger
from mpi_dcasgd.server.message import Kind
from mpi_dcasgd.server.push import Push
from mpi_dcasgd.server.records import UpdateRecord
from mpi_dcasgd.server.server import ParameterServer


class SynchronousSimulator:
    """A simulated synchronous run, with gradients.

    Args:
        server: With one worker, the whole group; its tickets are ``workers * accumulate`` times as
            large as those of the learner. With backup workers its ledger is replaced: which
            minibatches are in a step is then not known beforehand.
        learner: Its plan is the server's, split; on the server's device.
        cluster: Decides how long everything takes.
        workers: Those whose gradients make a step.
        backup: Workers beyond those.
        seed: Of the delays.
        stop: Looked at after every step.
        accumulate: Minibatches of each worker that make one update.

    Attributes:
        told: Called with the record of every step. To be set before ``run``.
    """

    def __init__(
        self,
        server: ParameterServer,
        learner: Learner,
        cluster: Cluster,
        workers: int,
        backup: int,
        seed: int,
        stop: StopFlag | None = None,
        accumulate: int = 1,
    ) -> None:
        self.server = server
        self.told: Callable[[UpdateRecord], None] = lambda record: None
        everyone = workers + backup
        self.clock = StepClock(cluster, everyone, workers, 4 * server.layout.size, seed)
        self._learner = learner
        self._workers = workers
        self._accumulate = accumulate
        self._stop = StopFlag() if stop is None else stop
        self._sum = zeros(server.weights.numel(), server.weights.dtype, server.weights.device)
        self._samples = [0] * everyone
        self._step_samples = 0
        self._ledger: TicketLedger | None = None
        self._begun = self._over = False
        self._until_s = math.inf if cluster.until_s is None else cluster.until_s
        if backup:
            self._ledger = TicketLedger(learner.plan.num_tickets, everyone)
            server.ledger = TicketLedger(-(-learner.plan.num_tickets // (workers * accumulate)), 1)
            server.samples_of = lambda ticket: self._step_samples
            self.clock.grant = self._grant
            self.clock.hand_back = self._hand_back
        else:
            self.clock.grant = lambda worker: len(self._parts(worker))

    @property
    def time_s(self) -> float:
        """Virtual seconds since the start: the clock for a ``Conductor``."""
        return self.clock.now

    @property
    def done(self) -> bool:
        return self.server.finished or self._over

    def run(self, steps: int | None = None) -> None:
        """Go on to the end, or for so many steps."""
        server = self.server
        if not self._begun:
            self._begun = True
            server.pull(0)
        made = 0
        while not self.done and made != steps:
            made += 1
            group = self.clock.step()
            if self.clock.now > self._until_s:
                self._over = True
                break
            self._make_step(group)
            if self._stop and not server.finished:
                server.halt()
                break

    def _make_step(self, workers: list[int]) -> None:
        server, flat, slot = self.server, self._learner.flat, self.server.slots[0]
        turns = [(worker, ticket) for worker in workers for ticket in self._tickets_of(worker)]
        self._learner.expect(ticket for _, ticket in turns)
        samples = sum(self._learner.plan.size(ticket) for _, ticket in turns)
        self._step_samples = samples
        total, loss = self._sum.zero_(), 0.0
        for worker, ticket in turns:
            flat.read(slot.snapshot)
            found = self._learner.gradient(self._learner.load(ticket))
            share = found.samples / samples
            total.add_(flat.grad, alpha=share)
            loss += found.loss * share
            self._samples[worker] += found.samples
            if self._ledger:
                self._ledger.complete(worker, ticket)
        params = total[: server.layout.num_params]
        norm = torch.linalg.vector_norm(params, dtype=torch.float64).item()
        push = Push(slot.version, self._ticket, samples, loss, norm, total)
        server.tally.dropped = self.clock.dropped
        self.told(server.push(0, push).record)

    def _parts(self, worker: int) -> list[int]:
        """The worker's parts of the group's present ticket."""
        message = self.server.slots[0].message
        if message.kind is not Kind.WORK:
            return []
        return self.server.plan.parts(self._ticket, worker, self._workers, self._accumulate)

    @property
    def _ticket(self) -> int:
        """The group's present ticket; with minibatches ahead it was granted before others."""
        return self.server.ledger.held(0)[0]

    def _tickets_of(self, worker: int) -> list[int]:
        return list(self._ledger.held(worker)) if self._ledger else self._parts(worker)

    def _grant(self, worker: int) -> int:
        assert self._ledger is not None  # or this would not have been asked
        granted = (self._ledger.grant(worker) for _ in range(self._accumulate))
        return sum(ticket is not None for ticket in granted)

    def _hand_back(self, worker: int) -> None:
        assert self._ledger is not None
        self._ledger.reclaim(worker)

    def state_dict(self) -> dict[str, Any]:
        """Complete state to resume from, the server included, in plain values and tensors."""
        return {
            "server": self.server.state_dict(),
            "clock": self.clock.state_dict(),
            "ledger": None if self._ledger is None else self._ledger.state_dict(),
            "samples": list(self._samples),
            "begun": self._begun,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken, bit for bit.

        Raises:
            ProtocolError: It is another job's.
        """
        self.server.load_state_dict(saved["server"])
        self.clock.load_state_dict(saved["clock"])
        if self._ledger is not None:
            self._ledger.load_state_dict(saved["ledger"])
        self._samples = list(saved["samples"])
        self._begun = saved["begun"]

    def accounts(self) -> list[Account]:
        """Return where each worker's virtual time went, up to now."""
        device = str(self._learner.device)
        return [
            replace(
                account,
                host="simulated",
                device=device,
                samples=samples,
                wait_s=max(0.0, self.clock.now - account.compute_s),
            )
            for account, samples in zip(self.clock.accounts, self._samples, strict=True)
        ]
