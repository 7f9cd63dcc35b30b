"""A server that follows, behind nonblocking MPI: stretches of pushes in, orders in, replies out.

It has one persistent receive and one persistent send a worker, of its stretch alone: whose push it
is says the sender, and what becomes of it the leader. From a worker that shares memory nothing
comes. For each pair of worker and follower, pushes and replies alternate, as they do between worker
and leader, so the n-th push answers the n-th reply on all of these ways.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from mpi4py import MPI
from numpy.typing import NDArray

from mpi_dcasgd.drivers.backoff import CROWDED_SPIN_S, Backoff
from mpi_dcasgd.drivers.crew import BATCH_BYTES, COUNT_WORDS
from mpi_dcasgd.drivers.deaths import failed_ranks, is_death
from mpi_dcasgd.drivers.notes import ServerWatch
from mpi_dcasgd.drivers.topology import SERVER, Topology
from mpi_dcasgd.drivers.transport.segment import Segment
from mpi_dcasgd.server.follower import Follower
from mpi_dcasgd.server.message import Message, Tag
from mpi_dcasgd.server.orders import CrewTag, Order, OrderKind, orders_in
from mpi_dcasgd.server.shard import vectors_of, with_vectors

_LAST_REPLIES_S = 10.0
"""Seconds in which workers have to take their last replies; one that hangs takes none."""

_WRITES_SNAPSHOT = (OrderKind.APPLY, OrderKind.APPLY_HELD, OrderKind.RENEW)

_NOTHING = np.empty(0, dtype=np.int32)

_being_sent: list[Follower] = []
"""Those with replies that are half-way to workers that hang, for as long as this process lives."""


class FollowerLoop:
    """Loop that carries out the leader's orders.

    Args:
        comm: The world.
        world: Its topology.
        follower: This server's shard.
        watch: Watches over the leader.
        spin_s: Seconds that a wait polls before it sleeps.
        shared: Memory of this shard that workers have in common with all servers, by worker: their
            pushes are here when the leader has the header, and what they are sent of this server is
            a word that their reply is there.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        world: Topology,
        follower: Follower,
        watch: ServerWatch,
        spin_s: float = CROWDED_SPIN_S,
        shared: Mapping[int, Segment] | None = None,
    ) -> None:
        self._shared = frozenset(shared or ())
        for worker, segment in (shared or {}).items():
            follower.share(worker, segment.push, segment.reply)
        self._comm = comm
        self._world = world
        self._follower = follower
        self._watch = watch
        self._spin_s = spin_s
        pushes, replies = (
            [self._travels(worker, message) for worker, message in enumerate(messages)]
            for messages in (follower.pushes, follower.replies)
        )
        self._receives = [
            comm.Recv_init(buffer, source=rank, tag=Tag.PUSH)
            for rank, buffer in zip(world.worker_ranks, pushes, strict=True)
        ]
        self._sends = [
            comm.Send_init(buffer, dest=rank, tag=Tag.REPLY)
            for rank, buffer in zip(world.worker_ranks, replies, strict=True)
        ]
        self._owed = [False] * world.num_workers
        self._arrived: list[int] = []  # and not told yet
        self._packed = bytearray(BATCH_BYTES)
        self._ordered = comm.Recv_init([self._packed, MPI.BYTE], source=SERVER, tag=CrewTag.ORDERS)
        self._status = MPI.Status()
        self._note = np.zeros(COUNT_WORDS + world.num_workers, dtype=np.int64)
        self._noting = comm.Send_init(self._note, dest=SERVER, tag=CrewTag.ARRIVALS)
        self._report = False
        self._listening = False
        self._ended = False

    def run(self) -> None:
        """Carry out orders until there are no more.

        Raises:
            RanksLostError: The leader died or hangs, or another server died.
        """
        self._listen()
        backoff = Backoff(self._spin_s)
        while not self._ended:
            if backoff.attempt(self._look):
                backoff.reset()
            elif backoff.pause():
                self._watch.look()
        deadline = time.monotonic() + _LAST_REPLIES_S
        self._watch.wait(lambda: self._all_sent() or time.monotonic() > deadline, self._spin_s)

    def close(self) -> None:
        """Free the MPI requests, those of a run that failed, too."""
        for receive, owed in zip(self._receives, self._owed, strict=True):
            if owed:
                receive.Cancel()
            receive.Free()
        for worker, send in enumerate(self._sends):
            if self._is_sent(worker):
                send.Free()
            else:
                _being_sent.append(self._follower)  # MPI may read from it until the end
        if self._listening:
            self._ordered.Cancel()
        self._ordered.Free()
        self._noting.Free()

    def _travels(self, worker: int, message: Message) -> NDArray[np.int32]:
        return _NOTHING if worker in self._shared else message.body

    def _listen(self) -> None:
        self._ordered.Start()
        self._listening = True
        self._watch.begin()

    def _look(self) -> bool:
        """Take what has come; return whether there was anything."""
        before = len(self._arrived)
        self._take_pushes()
        ordered = self._guarded(lambda: self._ordered.Test(self._status))
        if ordered:
            packed = bytes(self._packed[: self._status.Get_count(MPI.BYTE)])
            self._listen()
            for order in orders_in(packed):
                self._carry_out(order)
        self._tell()
        return ordered or len(self._arrived) > before

    def _take_pushes(self) -> None:
        if not any(self._owed):
            return
        try:
            found = MPI.Request.Testsome(self._receives) or []
        except MPI.Exception as error:
            found = self._beside_failures(error)
        for worker in found:
            self._owed[worker] = False
        self._arrived += found

    def _beside_failures(self, error: MPI.Exception) -> list[int]:
        """Return whose stretches have arrived, where a worker has died."""
        if not is_death(error):
            raise error
        dead = failed_ranks(self._comm)
        if any(rank in self._world.server_ranks for rank in dead):
            raise self._watch.meaning(error)
        for rank in dead:
            worker = self._world.worker_of(rank)
            if worker is not None:
                self._owed[worker] = False
        return [w for w, owed in enumerate(self._owed) if owed and self._receives[w].Test()]

    def _carry_out(self, order: Order) -> None:
        worker, kind = order.worker, order.kind
        if kind in _WRITES_SNAPSHOT:
            self._wait_sent(worker)
        self._follower.carry_out(order)
        if kind in (OrderKind.REPLY, OrderKind.LAST_REPLY):
            self._wait_sent(worker)
            if kind is OrderKind.REPLY and worker not in self._shared:
                self._receives[worker].Start()
                self._owed[worker] = True
            self._sends[worker].Start()
        elif kind is OrderKind.HAND_IN_WEIGHTS:
            self._hand_in([self._follower.weights])
        elif kind is OrderKind.HAND_IN_STATE:
            self._hand_in(vectors_of(self._follower.state_dict()))
        elif kind is OrderKind.TAKE_OVER:
            self._take_over()
        elif kind is OrderKind.REPORT:
            self._report = True
        elif kind is OrderKind.END:
            self._ended = True

    def _tell(self) -> None:
        """Note to the leader whose stretches have arrived, once the note before is out."""
        if not (self._arrived or self._report) or not self._guarded(self._noting.Test):
            return
        self._note[0] = len(self._arrived)
        self._note[COUNT_WORDS : COUNT_WORDS + len(self._arrived)] = self._arrived
        self._noting.Start()
        self._arrived, self._report = [], False

    def _wait_sent(self, worker: int) -> None:
        """Wait until the reply before is out of the snapshot, which is written again now."""
        self._watch.wait(lambda: self._is_sent(worker), self._spin_s)

    def _is_sent(self, worker: int) -> bool:
        try:
            return self._sends[worker].Test()
        except MPI.Exception as error:
            if not is_death(error):
                raise
            return True  # whoever was to have it is no more

    def _all_sent(self) -> bool:
        return all(self._is_sent(worker) for worker in range(len(self._sends)))

    def _hand_in(self, vectors: list[torch.Tensor]) -> None:
        for vector in vectors:
            request = self._comm.Isend(vector.numpy(), dest=SERVER, tag=CrewTag.VECTOR)
            self._watch.wait(request.Test, self._spin_s)

    def _take_over(self) -> None:
        comm = self._comm
        self._watch.wait(lambda: comm.iprobe(source=SERVER, tag=CrewTag.OUTLINE), self._spin_s)
        state = with_vectors(comm.recv(source=SERVER, tag=CrewTag.OUTLINE))
        for vector in vectors_of(state):
            request = comm.Irecv(vector.numpy(), source=SERVER, tag=CrewTag.VECTOR)
            self._watch.wait(request.Test, self._spin_s)
        self._follower.take_over(state)

    def _guarded(self, step: Callable[[], bool]) -> bool:
        try:
            return step()
        except MPI.Exception as error:
            raise self._watch.meaning(error) from None
