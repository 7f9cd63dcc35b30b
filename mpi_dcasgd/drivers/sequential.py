"""Sequential baseline: one worker in the server's own process, so staleness is always 0."""

from __future__ import annotations

import time

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.learning.learner import Learner
from mpi_dcasgd.learning.prefetch import Pipeline
from mpi_dcasgd.server.message import Kind
from mpi_dcasgd.server.push import Push
from mpi_dcasgd.server.server import ParameterServer


def run_sequential(
    server: ParameterServer,
    learner: Learner,
    conductor: Conductor,
    stop: StopFlag,
    account: Account | None = None,
) -> Account:
    """Train until the tickets are used up or a stop is requested.

    Args:
        server: With one worker; its slot's snapshot must be the memory of the learner's weights
            (``learner.flat.weights``), so that a pull copies nothing.
        learner: Computes the gradients.
        conductor: Has begun; is told of every update.
        stop: Checked after every update.
        account: Receives the time that is spent; a new one if None.

    Returns:
        The account.

    Raises:
        ValueError: The learner's weights are not the snapshot.
    """
    account = Account(worker=0) if account is None else account
    slot = server.slots[0]
    if slot.snapshot.data_ptr() != learner.flat.weights.data_ptr():
        raise ValueError("the learner's weights must be the snapshot of the server's only slot")
    server.pull(0)
    with Pipeline(learner, background=server.ahead > 0) as pipeline:
        while slot.message.kind is Kind.WORK:
            pipeline.grant(slot.message.tickets)
            started = time.perf_counter()
            batch = pipeline.next()
            loaded = time.perf_counter()
            found = learner.gradient(batch)
            computed = time.perf_counter()
            record = server.push(0, Push.found(slot.version, found, learner.flat.grad)).record
            account.add(
                found.samples,
                data_s=loaded - started,
                compute_s=computed - loaded,
                comm_s=time.perf_counter() - computed,
            )
            conductor.after(record)
            if stop and slot.message.kind is Kind.WORK:
                server.halt()
                break
    return account
