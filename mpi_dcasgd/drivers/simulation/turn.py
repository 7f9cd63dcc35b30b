"""One worker's turn in a driver that has server and workers in one process."""

from __future__ import annotations

from mpi_dcasgd.learning.learner import Gradient, Learner
from mpi_dcasgd.server.push import Answer, Push
from mpi_dcasgd.server.server import ParameterServer
from mpi_dcasgd.server.wire import round_gradient


def take_turn(
    server: ParameterServer, learner: Learner, worker: int, ticket: int
) -> tuple[Gradient, Answer]:
    """Compute the gradient of a ticket at the weights that the worker was sent, and push it.

    Args:
        server: On any device: a server of a real run is on the CPU, and rounds as one.
        learner: Computes all workers' gradients, one after the other, on any device.
        worker: Whose turn it is; it has been sent work.
        ticket: One that it was granted.

    Returns:
        What was found, and what the server answers.
    """
    slot, flat = server.slots[worker], learner.flat
    flat.read(slot.snapshot)
    found = learner.gradient(learner.load(ticket))
    wire, vector = server.wire, flat.grad.to(server.weights.device)
    round_gradient(vector[: wire.num_params], wire.push, found.norm)
    return found, server.push(worker, Push.found(slot.version, found, vector))
