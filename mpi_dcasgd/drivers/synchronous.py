"""Synchronous SGD (SSGD): every rank trains, Horovod averages the gradients.

Each rank keeps a replica of the server with a single worker, the whole synchronous group, whose
tickets are ``num_workers`` times as large. Rank r takes the r-th part of each, the very minibatch
that an asynchronous run would have named so; all apply the same averaged gradient through the
same rule. The average weights samples equally, also where an epoch's last ticket does not give
every rank a full part, so W workers equal one worker with a batch W times as large.
"""

from __future__ import annotations

import time
from types import ModuleType
from typing import TYPE_CHECKING

import torch

from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.drivers.pipeline import Pipeline
from mpi_dcasgd.drivers.sequential import Spent
from mpi_dcasgd.drivers.stopping import StopFlag
from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.learning.task import Gradient, Task
from mpi_dcasgd.server.message import Kind
from mpi_dcasgd.server.server import ParameterServer, Push

if TYPE_CHECKING:
    from mpi4py import MPI


def start_horovod(comm: MPI.Comm) -> ModuleType:
    """Import and initialise Horovod on an MPI communicator.

    Raises:
        LaunchError: It cannot be imported, has no MPI, or MPI has no threads.
    """
    remedy = (
        "Build it against this PyTorch and MPI with `python -m mpi_dcasgd.tools.build_horovod`, "
        "or run an asynchronous algorithm, which needs none."
    )
    try:
        import horovod.torch as hvd
    except Exception as error:  # an ABI mismatch can surface as almost anything
        raise LaunchError(
            f"algorithm ssgd needs Horovod, which cannot be imported ({error}). {remedy}"
        ) from error
    if not hvd.mpi_built():
        raise LaunchError(f"this Horovod was built without MPI. {remedy}")
    hvd.init(comm=comm)
    if not hvd.mpi_threads_supported():
        raise LaunchError(
            "Horovod reports that this MPI does not support MPI_THREAD_MULTIPLE, which it needs; "
            "use an MPI that does."
        )
    return hvd  # type: ignore[no-any-return]  # Horovod has no type information


def run_synchronous(
    hvd: ModuleType,
    server: ParameterServer,
    task: Task,
    conductor: Conductor | None,
    stop: StopFlag,
) -> Spent:
    """Train one rank of the group until the tickets are used up or any rank is asked to stop.

    Args:
        hvd: ``horovod.torch``, initialised.
        server: This rank's replica: one worker, tickets ``hvd.size()`` times the batch size.
        task: Its plan is the server's, split; its weights are the only slot's snapshot.
        conductor: On the rank that records, else None.
        stop: Set on any rank, it stops all of them after the same update.
    """
    rank, size = hvd.rank(), hvd.size()
    slot, flat = server.slots[0], task.flat
    spent = Spent()
    # One small vector travels beside the gradient: the mean loss, and whether anyone wants to stop.
    side = torch.zeros(2)
    server.pull(0)
    with Pipeline(task, background=server.ahead > 0) as pipeline:
        parts: list[tuple[int, int | None]] = []
        while slot.message.kind is Kind.WORK:
            started = time.perf_counter()
            granted = [(t, server.plan.part(t, rank, size)) for t in slot.message.tickets]
            parts += granted
            pipeline.grant(part for _, part in granted if part is not None)
            ticket, part = parts.pop(0)
            batch = None if part is None else pipeline.next()
            loaded = time.perf_counter()
            found = None if batch is None else task.gradient(batch)
            samples = server.plan.size(ticket)
            _weigh(found, samples, flat.grad, side, stop)
            computed = time.perf_counter()
            pending = (
                hvd.allreduce_async_(flat.grad, op=hvd.Sum, name="gradient"),
                hvd.allreduce_async_(side, op=hvd.Sum, name="side"),
            )
            for handle in pending:
                hvd.synchronize(handle)
            params = flat.grad[: flat.layout.num_params]
            norm = torch.linalg.vector_norm(params, dtype=torch.float64).item()
            push = Push(slot.version, ticket, samples, float(side[0]), norm, flat.grad)
            record = server.push(0, push).record
            spent.data_s += loaded - started
            spent.compute_s += computed - loaded
            spent.comm_s += time.perf_counter() - computed
            spent.updates += found is not None
            spent.samples += found.samples if found else 0
            if conductor:
                conductor.after(record)
            if side[1] > 0 and slot.message.kind is Kind.WORK:
                server.halt()
                break
    return spent


def _weigh(
    found: Gradient | None, samples: int, grad: torch.Tensor, side: torch.Tensor, stop: StopFlag
) -> None:
    """Scale this rank's share so that the sum over ranks is the mean over all samples."""
    side[1] = float(bool(stop))
    if found is None:
        grad.zero_()
        side[0] = 0.0
        return
    share = found.samples / samples
    grad.mul_(share)
    side[0] = found.loss * share
