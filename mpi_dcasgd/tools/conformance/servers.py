"""Servers that laws can drive: anything that hands out weights and takes gradients.

A rule of this package is driven through the real parameter server, in float64. A server written
elsewhere needs a constructor and two methods::

    class Theirs:
        def __init__(self, weights, num_workers, lr): ...  # torch tensor, shape (P,)
        def pull(self, worker): ...  # -> weights for that worker
        def push(self, worker, grad): ...  # computed at what it pulled last

Workers are numbered from 0. Each of them pulls first, and then pushes and pulls in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from mpi_dcasgd.learning.flat import FlatLayout
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.rules.stretch import Stretch
from mpi_dcasgd.server.push import Push
from mpi_dcasgd.server.records import UpdateRecord
from mpi_dcasgd.server.server import ParameterServer

_ENDLESS = TicketPlan(num_samples=1 << 40, batch_size=1, seed=0, epochs=1)


class Server(Protocol):
    """Hands out weights and takes gradients."""

    def pull(self, worker: int) -> Tensor:
        """The weights that the worker is sent, shape (P,)."""
        ...

    def push(self, worker: int, grad: Tensor) -> object:
        """Take a gradient, shape (P,), computed at what the worker pulled last."""
        ...


MakeServer = Callable[[Tensor, int, float], Server]
"""``make(weights, num_workers, lr)``; the weights are the server's to keep and to change."""


class RuleServer:
    """The parameter server with a rule, moved by hand and never out of tickets.

    Args:
        rule: What is done with a gradient.
        weights: w_0, shape (P,), float32 or float64; updated in place.
        num_workers: How many workers there are.
        lr: The rate, or a schedule of it by samples applied, one sample a gradient.
        stretches: Parameter groups, which cover the weights in order; none for one group.
    """

    def __init__(
        self,
        rule: Rule,
        weights: Tensor,
        num_workers: int,
        lr: float | Callable[[int], float],
        stretches: tuple[Stretch, ...] = (),
    ) -> None:
        layout = FlatLayout((), (), weights.numel(), num_stats=0, stretches=stretches)
        schedule = lr if callable(lr) else lambda samples: lr
        none = torch.zeros(0, dtype=weights.dtype)
        self.server = ParameterServer(weights, layout, rule, _ENDLESS, schedule, num_workers, none)

    @property
    def weights(self) -> Tensor:
        """The server's weights, not a copy."""
        return self.server.weights

    def pull(self, worker: int) -> Tensor:
        """Weights that the worker was sent last; one that has to wait still has those of before."""
        slot = self.server.slots[worker]
        if slot.status == "absent":
            self.server.pull(worker)
        return slot.snapshot

    def may_push(self, worker: int) -> bool:
        """Return whether the worker has been given work."""
        return self.server.slots[worker].status == "working"

    def push(self, worker: int, grad: Tensor) -> UpdateRecord:
        """Deliver a gradient; new weights, if any, are in the worker's slot at once."""
        slot = self.server.slots[worker]
        norm = float(torch.linalg.vector_norm(grad))
        ticket = self.server.ledger.held(worker)[0]
        return self.server.push(worker, Push(slot.version, ticket, 1, 0.0, norm, grad)).record

    def state_dict(self) -> dict[str, Any]:
        """Return the complete state of the server, to resume from."""
        return self.server.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what another server was."""
        self.server.load_state_dict(state)


class PlainServer:
    """ASGD in three lines: what a server without momentum must be where nothing is stale."""

    def __init__(self, weights: Tensor, num_workers: int, lr: float) -> None:
        self.weights = weights
        self.lr = lr

    def pull(self, worker: int) -> Tensor:
        return self.weights.clone()

    def push(self, worker: int, grad: Tensor) -> None:
        self.weights -= self.lr * grad


def may_push(server: Server, worker: int) -> bool:
    """Return whether a worker has something to push; a server that does not say lets everyone."""
    ask = getattr(server, "may_push", None)
    return bool(ask(worker)) if ask else True
