"""A server that follows: it has one shard, and carries out what the leader orders.

A state machine without network and clock, like the server itself. It decides nothing: neither what
becomes of a push nor which comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mpi_dcasgd.errors import ProtocolError
from mpi_dcasgd.rules.alignment import zeros_beside
from mpi_dcasgd.rules.chain import Chain
from mpi_dcasgd.rules.fuse import Fuse
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.server.model_state import ModelState
from mpi_dcasgd.server.orders import Order, OrderKind
from mpi_dcasgd.server.shard import Shard


class Follower:
    """One shard of the weights, and each worker's push and snapshot of it.

    Args:
        weights: Initial weights of the shard, shape (shard.layout.size,); updated in place.
        shard: Which.
        rule: Rule that applies gradients.
        num_workers: Number of workers.
        stats_rate: Of the shard, shape (shard.layout.num_stats,).
        fuse: Way in which an update is computed (``shard.way_of``).

    Attributes:
        pushes: What each worker has pushed last, shape (shard.layout.size,); the driver's to write.
        snapshots: What each worker was sent last.
    """

    def __init__(
        self,
        weights: Tensor,
        shard: Shard,
        rule: Rule,
        num_workers: int,
        stats_rate: Tensor,
        fuse: Fuse,
    ) -> None:
        self.weights = weights
        self.shard = shard
        self._model = ModelState(
            weights, shard.layout, rule, _nobody_asks, num_workers, stats_rate, fuse
        )
        self.snapshots = [zeros_beside(weights, 1) for _ in range(num_workers)]
        self.pushes = [zeros_beside(weights, 2) for _ in range(num_workers)]

    @property
    def chain(self) -> Chain:
        """The rule at work."""
        return self._model.chain

    @property
    def version(self) -> int:
        """Number of updates so far."""
        return self._model.version

    def carry_out(self, order: Order) -> None:
        """Change weights, state or snapshots as an order says; others change nothing here.

        Raises:
            ProtocolError: It is for another version than the shard has come to.
        """
        worker, facts = order.worker, order.facts
        if order.kind is OrderKind.HOLD:
            self._model.hold(worker, self.pushes[worker], order.samples)
        if order.kind not in (OrderKind.APPLY, OrderKind.APPLY_HELD, OrderKind.RENEW):
            return
        if facts.version != self.version:
            raise ProtocolError(
                f"an order for version {facts.version} came to a server that is at version "
                f"{self.version}"
            )
        if order.kind is OrderKind.APPLY:
            self._model.apply(self.pushes[worker], self.snapshots[worker], facts)
        elif order.kind is OrderKind.APPLY_HELD:
            self._model.apply_held(self.snapshots[worker], facts)
        else:
            self._model.renew(self.snapshots[worker], facts)

    def state_dict(self) -> dict[str, Any]:
        """Return the shard's state (``ModelState.state_dict``); samples are the leader's."""
        return self._model.state_dict()

    def take_over(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of this shard, with any number of workers."""
        self._model.take_over(state)


def _nobody_asks(samples: int) -> float:
    raise ProtocolError("the rate of an update is the leader's to say")
