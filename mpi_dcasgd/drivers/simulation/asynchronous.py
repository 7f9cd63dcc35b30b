"""An asynchronous run in virtual time: the real server and real gradients in one process.

Who delivers when is decided by the engine and a description of the cluster, what a gradient is by
the server's own slots. So a worker's gradient may be computed at the moment at which it arrives:
the weights that it was sent lie untouched in its slot until then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.drivers.simulation.cluster import Cluster
from mpi_dcasgd.drivers.simulation.engine import Engine
from mpi_dcasgd.drivers.simulation.turn import drop_turn, take_turn
from mpi_dcasgd.learning.learner import Learner
from mpi_dcasgd.server.header import HEADER_BYTES
from mpi_dcasgd.server.records import UpdateRecord
from mpi_dcasgd.server.server import ParameterServer

_HOST = "simulated"


def message_bytes(server: ParameterServer) -> int:
    """Bytes of a push and of a reply of this server."""
    return HEADER_BYTES + 4 * server.layout.size


class TrainingSite:
    """The real server, with one learner that computes every worker's gradients.

    Args:
        server: At the start of a run; on any device, the learner's.
        learner: Reads its worker's snapshot for every gradient.
        told: Called with the record of every push.
        stop: Looked at after every push.
    """

    def __init__(
        self,
        server: ParameterServer,
        learner: Learner,
        told: Callable[[UpdateRecord], None],
        stop: StopFlag,
    ) -> None:
        self._server = server
        self._learner = learner
        self._told = told
        self._stop = stop
        self._halted = False
        self.queues: list[deque[int]] = [deque() for _ in server.slots]
        self.samples = [0] * server.num_workers

    @property
    def done(self) -> bool:
        server = self._server
        return server.complete or (self._halted and server.finished)

    def join(self, worker: int) -> Sequence[int]:
        return self._receive(self._server.pull(worker))

    def push(self, worker: int) -> Sequence[int]:
        server = self._server
        ticket = self.queues[worker].popleft()
        if server.drops(worker):
            answer = drop_turn(server, self._learner, worker, ticket)
        else:
            answer = take_turn(server, self._learner, worker, ticket)[1]
        self.samples[worker] += answer.record.samples
        ready = self._receive(answer.ready)
        self._told(answer.record)
        if self._stop and not self._halted:
            self._halted = True
            ready += self._receive(server.halt())
        return ready

    def lose(self, worker: int) -> Sequence[int]:
        self.queues[worker].clear()
        return self._receive(self._server.lose(worker))

    def rejoin(self, worker: int) -> Sequence[int]:
        return self._receive(self._server.rejoin(worker))

    def _receive(self, ready: Sequence[int]) -> list[int]:
        """Hand out what was granted; the workers that are not told to stop."""
        working = []
        for worker in ready:
            slot = self._server.slots[worker]
            if slot.status == "working":
                self.queues[worker] += slot.message.tickets
                self._learner.expect(slot.message.tickets)
                working.append(worker)
        return working


class Simulator:
    """A simulated run: server, learner and cluster.

    Args:
        server: At the start of a run.
        learner: Computes all gradients, on the server's device.
        cluster: Decides how long everything takes.
        seed: Of the delays.
        stop: Looked at after every push.

    Attributes:
        told: Called with the record of every push, ``time_s`` being that of its service. To be
            set before ``run``, usually to ``Conductor.after``.
    """

    def __init__(
        self,
        server: ParameterServer,
        learner: Learner,
        cluster: Cluster,
        seed: int,
        stop: StopFlag | None = None,
    ) -> None:
        self.server = server
        self.told: Callable[[UpdateRecord], None] = lambda record: None
        self._learner = learner
        self._site = TrainingSite(
            server, learner, lambda record: self.told(record), StopFlag() if stop is None else stop
        )
        self._engine = Engine(cluster, server.num_workers, message_bytes(server), seed, self._site)

    @property
    def time_s(self) -> float:
        """Virtual seconds since the start: the clock for a ``Conductor``."""
        return self._engine.now

    @property
    def done(self) -> bool:
        return self._site.done or self._engine.over

    def run(self, pushes: int | None = None) -> None:
        """Go on to the end, or for so many pushes."""
        self._engine.run(pushes)

    def accounts(self) -> list[Account]:
        """Return where each worker's virtual time went, up to now."""
        engine, device = self._engine, str(self._learner.device)
        return [
            replace(
                account,
                host=_HOST,
                device=device,
                samples=samples,
                compute_s=engine.computed_s(account.worker),
            )
            for account, samples in zip(engine.accounts, self._site.samples, strict=True)
        ]

    @property
    def spent(self) -> Sequence[Account]:
        """The workers' accounts as they are being kept, without what a checkpoint adds."""
        return self._engine.accounts

    @property
    def busy_s(self) -> float:
        """Seconds so far in which the server was taking pushes."""
        return self._engine.server_busy_s

    @property
    def server_busy(self) -> float:
        """Share of the time in which the server was taking pushes."""
        engine = self._engine
        return engine.server_busy_s / engine.now if engine.now else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Complete state to resume from, the server included, in plain values and tensors."""
        return {
            "server": self.server.state_dict(),
            "engine": self._engine.state_dict(),
            "queues": [list(queue) for queue in self._site.queues],
            "samples": list(self._site.samples),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken, bit for bit.

        Raises:
            ProtocolError: It is another job's.
        """
        self.server.load_state_dict(saved["server"])
        self._engine.load_state_dict(saved["engine"])
        for queue, tickets in zip(self._site.queues, saved["queues"], strict=True):
            queue.clear()
            queue.extend(tickets)
        self._site.samples = list(saved["samples"])
