"""Synchronous SGD (SSGD): every rank trains, an allreduce averages the gradients.

Each rank keeps a replica of the server with a single worker, the whole synchronous group, whose
tickets are ``num_workers * accumulate`` times as large. Rank r takes every ``num_workers``-th part
of each from the r-th on: the very minibatches that an asynchronous run would have named so. All
apply the same averaged gradient through the same rule. The average weights samples equally, also
where an epoch's last ticket does not give every rank a full part, so W workers equal one worker
with a batch W times as large.
"""

from __future__ import annotations

import time
from collections import deque

import torch
from torch import Tensor

from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.drivers.pipeline import Pipeline
from mpi_dcasgd.drivers.reducers import DTYPES, Compression, Reducer
from mpi_dcasgd.drivers.sequential import Spent
from mpi_dcasgd.drivers.stopping import StopFlag
from mpi_dcasgd.learning.task import Task
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.server.message import Kind
from mpi_dcasgd.server.push import Push
from mpi_dcasgd.server.server import ParameterServer


def run_synchronous(
    reducer: Reducer,
    server: ParameterServer,
    task: Task,
    conductor: Conductor | None,
    stop: StopFlag,
    *,
    accumulate: int = 1,
    compression: Compression = "none",
) -> Spent:
    """Train one rank of the group until the tickets are used up or any rank is asked to stop.

    Args:
        reducer: Sums over the ranks.
        server: This rank's replica: one worker, tickets ``reducer.size * accumulate`` times the
            batch size.
        task: Its plan is the server's, split; its weights are the only slot's snapshot.
        conductor: On the rank that records, else None.
        stop: Set on any rank, it stops all of them after the same update.
        accumulate: Minibatches of each rank that make one update.
        compression: What gradients are rounded to while they travel.
    """
    slot = server.slots[0]
    group = _Group(reducer, server, task, accumulate, compression)
    server.pull(0)
    with Pipeline(task, background=server.ahead > 0) as pipeline:
        todo: deque[tuple[int, list[int]]] = deque()
        while slot.message.kind is Kind.WORK:
            for ticket in slot.message.tickets:
                parts = group.parts_of(ticket)
                todo.append((ticket, parts))
                pipeline.grant(parts)
            ticket, parts = todo.popleft()
            loss = group.compute(pipeline, ticket, len(parts))
            push, halt = group.exchange(ticket, loss, bool(stop), slot.version)
            record = server.push(0, push).record
            if conductor:
                conductor.after(record)
            if halt and slot.message.kind is Kind.WORK:
                server.halt()
                break
    return group.spent


class _Group:
    """One rank's part in making the mean gradient of a large ticket."""

    def __init__(
        self,
        reducer: Reducer,
        server: ParameterServer,
        task: Task,
        accumulate: int,
        compression: Compression,
    ) -> None:
        self._reducer = reducer
        self._plan: TicketPlan = server.plan
        self._task = task
        self._accumulate = accumulate
        self._border = server.layout.num_params
        self._dtype = DTYPES.get(compression)
        grad = task.flat.grad
        # One minibatch's gradient is scaled where it is; several need a place to be summed in.
        self._sum = grad if accumulate == 1 else torch.zeros_like(grad)
        # The mean loss, and whether anyone wants to stop, travel beside the gradient; with
        # compression BatchNorm's statistics too, whose variances half precision would spoil.
        extra = server.layout.num_stats if self._dtype else 0
        self._side = torch.zeros(2 + extra, device=grad.device)
        self.spent = Spent()

    def parts_of(self, ticket: int) -> list[int]:
        """The small tickets that this rank computes of a large one; may be none at all."""
        reducer = self._reducer
        return self._plan.parts(ticket, reducer.rank, reducer.size, self._accumulate)

    def compute(self, pipeline: Pipeline, ticket: int, count: int) -> float:
        """This rank's share of the mean gradient, left in the sum; returns its share of the loss.

        The shares of all ranks add up to the mean over all samples of the ticket.
        """
        samples = self._plan.size(ticket)
        loss, grad = 0.0, self._task.flat.grad
        if count == 0 or self._sum is not grad:
            self._sum.zero_()
        for _ in range(count):
            started = time.perf_counter()
            batch = pipeline.next()
            loaded = time.perf_counter()
            found = self._task.gradient(batch)
            share = found.samples / samples
            if self._sum is grad:
                grad.mul_(share)
            else:
                self._sum.add_(grad, alpha=share)
            loss += found.loss * share
            self.spent.data_s += loaded - started
            self.spent.compute_s += time.perf_counter() - loaded
            self.spent.updates += 1
            self.spent.samples += found.samples
        return loss

    def exchange(self, ticket: int, loss: float, stop: bool, version: int) -> tuple[Push, bool]:
        """Sum over all ranks: the push of the whole group, and whether any rank wants to stop."""
        started = time.perf_counter()
        self._side[0] = loss
        self._side[1] = float(stop)
        params = self._sum[: self._border]
        if self._dtype is None:
            self._reduce(self._sum)
        else:
            small = params.to(self._dtype)
            self._side[2:] = self._sum[self._border :]
            self._reduce(small)
            params.copy_(small)
            self._sum[self._border :] = self._side[2:]
        norm = torch.linalg.vector_norm(params, dtype=torch.float64).item()
        mean_loss, stopping = self._side[:2].tolist()
        self.spent.comm_s += time.perf_counter() - started
        samples = self._plan.size(ticket)
        return Push(version, ticket, samples, mean_loss, norm, self._sum), stopping > 0

    def _reduce(self, gradient: Tensor) -> None:
        waits = [self._reducer.start(gradient, "gradient"), self._reducer.start(self._side, "side")]
        for wait in waits:
            wait()
