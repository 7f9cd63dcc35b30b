"""One worker's turn in a driver that has server and workers in one process."""

from __future__ import annotations

import math
from collections.abc import Callable

from mpi_dcasgd.learning.learner import Gradient, Learner
from mpi_dcasgd.server.push import Answer, Push
from mpi_dcasgd.server.server import ParameterServer
from mpi_dcasgd.server.wire import round_gradient

Deliver = Callable[[ParameterServer, int, Push], Answer]
"""Hands a worker's push to a server."""


def take_turn(
    server: ParameterServer,
    learner: Learner,
    worker: int,
    ticket: int,
    deliver: Deliver = ParameterServer.push,
) -> tuple[Gradient, Answer]:
    """Compute the gradient of a ticket at the weights that the worker was sent, and push it.

    Args:
        server: On any device: a server of a real run is on the CPU, and rounds as one.
        learner: Computes all workers' gradients, one after the other, on any device.
        worker: Whose turn it is; it has been sent work.
        ticket: One that it was granted.
        deliver: Hands the push over.

    Returns:
        What was found, and what the server answers.
    """
    slot, flat = server.slots[worker], learner.flat
    flat.read(slot.snapshot)
    found = learner.gradient(learner.load(ticket))
    wire, vector = server.wire, flat.grad.to(server.weights.device)
    round_gradient(vector[: wire.num_params], wire.push, found.norm)
    return found, deliver(server, worker, Push.found(slot.version, found, vector))


def drop_turn(
    server: ParameterServer,
    learner: Learner,
    worker: int,
    ticket: int,
    deliver: Deliver = ParameterServer.push,
) -> Answer:
    """Push a gradient that is dropped whatever it is, without computing it.

    With thousands of workers and a rule that takes fresh gradients only, nearly all are.

    Args:
        server: Its ``drops`` said so of the worker.
        learner: As for ``take_turn``.
        worker: Whose turn it is; it has been sent work.
        ticket: One that it was granted.
        deliver: Hands the push over.

    Returns:
        What the server answers; the record has no loss.
    """
    learner.skip(ticket)
    slot, samples = server.slots[worker], server.samples_of(ticket)
    # Nobody reads the vector, and the norm of what is not there cannot be infinite.
    empty = Push(slot.version, ticket, samples, math.nan, 0.0, slot.snapshot)
    return deliver(server, worker, empty)
