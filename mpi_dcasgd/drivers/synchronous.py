"""Synchronous SGD (SSGD): every rank trains, and an allreduce averages the gradients.

Each rank keeps a replica of the server. Its single worker is the whole synchronous group, whose
tickets are ``num_workers * accumulate`` times as large. Rank r takes every ``num_workers``-th part
of each ticket, starting with the r-th: the same minibatches that an asynchronous run grants. All
ranks apply the same averaged gradient through the same rule. The average weights samples equally,
even if an epoch's last ticket does not give every rank a full part, so W workers equal one worker
with a batch W times as large.
"""

from __future__ import annotations

import time
from collections import deque

import torch
from torch import Tensor

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.drivers.buckets import Buckets
from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.drivers.group_watch import GroupWatch, NoWatch
from mpi_dcasgd.drivers.reducers import DTYPES, Reducer
from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.drivers.sync_settings import Compression
from mpi_dcasgd.learning.learner import Learner
from mpi_dcasgd.learning.prefetch import Pipeline
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.pages import zeros
from mpi_dcasgd.server.message import Kind
from mpi_dcasgd.server.push import Push
from mpi_dcasgd.server.server import ParameterServer


def run_synchronous(
    reducer: Reducer,
    server: ParameterServer,
    learner: Learner,
    conductor: Conductor | None,
    stop: StopFlag,
    *,
    accumulate: int = 1,
    compression: Compression = "none",
    bucket_bytes: int | None = None,
    account: Account | None = None,
    watch: GroupWatch | None = None,
) -> Account:
    """Train one rank of the group until the tickets are used up or any rank has to stop.

    Args:
        reducer: Sums over the ranks.
        server: This rank's replica: one worker, tickets ``reducer.size * accumulate`` times the
            batch size.
        learner: Its plan is the server's, split; its weights are the only slot's snapshot.
        conductor: Present on the rank that records, else None.
        stop: If set on any rank, stops all of them after the same update.
        accumulate: Minibatches of each rank in one update.
        compression: Type that gradients are rounded to while they travel.
        bucket_bytes: Size from which a part of the gradient is sent during the backward pass;
            None sends all of it at the end. The learner must not be recorded as a graph if the
            gradient is larger.
        account: Receives the time that is spent; a new one if None.
        watch: Looks after the other ranks.

    Returns:
        The account.
    """
    account = Account(worker=reducer.rank) if account is None else account
    watcher = watch or NoWatch()
    slot = server.slots[0]
    group = _Group(reducer, server, learner, accumulate, compression, bucket_bytes, account)
    server.pull(0)
    with Pipeline(learner, background=server.ahead > 0) as pipeline:
        todo: deque[tuple[int, list[int]]] = deque()
        while slot.message.kind is Kind.WORK:
            for ticket in slot.message.tickets:
                parts = group.parts_of(ticket)
                todo.append((ticket, parts))
                pipeline.grant(parts)
            ticket, parts = todo.popleft()
            watcher.step()
            loss = group.compute(pipeline, ticket, len(parts))
            watcher.waits()
            push, halt = group.exchange(ticket, loss, bool(stop), slot.version)
            watcher.stepped()
            with watcher.lock:
                record = server.push(0, push).record
            if conductor:
                conductor.after(record)
            if halt and slot.message.kind is Kind.WORK:
                server.halt()
                break
    return account


class _Group:
    """One rank's share in the mean gradient of a large ticket."""

    def __init__(
        self,
        reducer: Reducer,
        server: ParameterServer,
        learner: Learner,
        accumulate: int,
        compression: Compression,
        bucket_bytes: int | None,
        account: Account,
    ) -> None:
        self._reducer = reducer
        self._plan: TicketPlan = server.plan
        self._learner = learner
        self._accumulate = accumulate
        self._border = border = server.layout.num_params
        grad = learner.flat.grad
        # One minibatch's gradient is scaled where it is; several need a place to be summed in.
        self._sum = grad if accumulate == 1 else zeros(grad.numel(), grad.dtype, grad.device)
        self._fields = [
            self._sum[field.offset : field.offset + field.size].view(field.shape)
            for field in server.layout.params
        ]
        whole = 4 * border if bucket_bytes is None else bucket_bytes
        dtype = DTYPES.get(compression)
        self._buckets = Buckets(server.layout, self._sum, reducer, dtype, whole)
        self._streams = len(self._buckets) > 1
        if self._streams:
            learner.flat.stream_gradient(self._take)
        self._taken: set[int] = set()
        self._share, self._first, self._last = 0.0, True, True
        # Beside the gradient travel the mean loss, whether anyone wants to stop, and BatchNorm's
        # statistics, whose variances half precision would spoil.
        self._side = torch.zeros(2 + server.layout.num_stats, device=grad.device)
        self._account = account

    def parts_of(self, ticket: int) -> list[int]:
        """Return the small tickets that this rank computes of a large one; there may be none."""
        reducer = self._reducer
        return self._plan.parts(ticket, reducer.rank, reducer.size, self._accumulate)

    def compute(self, pipeline: Pipeline, ticket: int, count: int) -> float:
        """Leave this rank's share of the mean gradient in the sum; return its share of the loss.

        The shares of all ranks add up to the mean over all samples of the ticket. If the gradient
        streams, its sum over the ranks begins within the last minibatch's backward pass.
        """
        samples = self._plan.size(ticket)
        loss = 0.0
        if count == 0:
            self._sum.zero_()
        for number in range(count):
            started = time.perf_counter()
            batch = pipeline.next()
            loaded = time.perf_counter()
            self._share = batch.samples / samples
            self._first, self._last = number == 0, number == count - 1
            loss += self._learner.compute(batch) * self._share
            self._collect()
            self._account.add(
                batch.samples,
                data_s=loaded - started,
                compute_s=time.perf_counter() - loaded,
            )
        return loss

    def exchange(self, ticket: int, loss: float, stop: bool, version: int) -> tuple[Push, bool]:
        """Sum over all ranks; return the group's push, and whether any rank wants to stop."""
        started = time.perf_counter()
        params, stats, side = self._sum[: self._border], self._sum[self._border :], self._side
        side[0] = loss
        side[1] = float(stop)
        side[2:] = stats
        self._buckets.filled_all()
        wait_for_side = self._reducer.start(side, "side")
        self._buckets.wait()
        wait_for_side()
        stats.copy_(side[2:])
        norm = torch.linalg.vector_norm(params, dtype=torch.float64).item()
        mean_loss, stopping = side[:2].tolist()
        self._account.comm_s += time.perf_counter() - started
        samples = self._plan.size(ticket)
        return Push(version, ticket, samples, mean_loss, norm, self._sum), stopping > 0

    def _take(self, number: int, gradient: Tensor) -> None:
        """Add a parameter's gradient to the sum, within the backward pass."""
        field = self._fields[number]
        if self._first:
            torch.mul(gradient, self._share, out=field)
        else:
            field.add_(gradient, alpha=self._share)
        self._taken.add(number)
        if self._last:
            self._buckets.filled(number)

    def _collect(self) -> None:
        """Add the learner's flat gradient to the sum, or only its statistics if it streams."""
        grad, mine, share = self._learner.flat.grad, self._sum, self._share
        if self._streams:
            # What the loss did not depend on has no gradient.
            for number in set(range(len(self._fields))) - self._taken if self._first else ():
                self._fields[number].zero_()
            self._taken.clear()
            grad, mine = grad[self._border :], mine[self._border :]
        if self._sum is self._learner.flat.grad:
            mine.mul_(share)
        elif self._first:
            torch.mul(grad, share, out=mine)
        else:
            mine.add_(grad, alpha=share)
