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
from mpi_dcasgd.server.message import Message
from mpi_dcasgd.server.model_state import ModelState
from mpi_dcasgd.server.orders import COMPUTING, Order, OrderKind
from mpi_dcasgd.server.precision import Precision, WireSettings
from mpi_dcasgd.server.rounding import ReplyRounding
from mpi_dcasgd.server.shard import Shard
from mpi_dcasgd.server.wire import NarrowMessage, Wire


class Follower:
    """One shard of the weights, and each worker's push and snapshot of it.

    Args:
        weights: Initial weights of the shard, shape (shard.layout.size,); updated in place.
        shard: Which.
        rule: Rule that applies gradients.
        num_workers: Number of workers.
        stats_rate: Of the shard, shape (shard.layout.num_stats,).
        fuse: Way in which an update is computed (``shard.way_of``).
        wire: What gradients and weights are rounded to on their way; None for float32.

    Attributes:
        wire: Form of the shard's vectors on their way.
        pushes: What each worker has pushed last; the driver's to write. Headers are the leader's.
        replies: What each worker was sent last; their vectors are the snapshots.
    """

    def __init__(
        self,
        weights: Tensor,
        shard: Shard,
        rule: Rule,
        num_workers: int,
        stats_rate: Tensor,
        fuse: Fuse,
        wire: WireSettings | None = None,
    ) -> None:
        self.weights = weights
        self.shard = shard
        self._model = ModelState(
            weights, shard.layout, rule, _nobody_asks, num_workers, stats_rate, fuse
        )
        self.wire = form = Wire.of(wire, shard.layout.num_params, shard.layout.num_stats)
        self._rounding = ReplyRounding(form, weights.device)
        self.replies = [
            self._message(form.reply, zeros_beside(weights, 1)) for _ in range(num_workers)
        ]
        # One is read at a time, so numbers of 16 bits become float32 in one place for all.
        place, own = zeros_beside(weights, 2), form.push == "float32"
        self.pushes = [
            self._message(form.push, zeros_beside(weights, 2) if own else place)
            for _ in range(num_workers)
        ]

    @property
    def chain(self) -> Chain:
        """The rule at work."""
        return self._model.chain

    @property
    def version(self) -> int:
        """Number of updates so far."""
        return self._model.version

    def share(self, worker: int, push: Tensor, reply: Tensor) -> None:
        """Have a worker's vectors in memory that it has, too; values are not kept.

        Args:
            worker: Which; it has been sent nothing yet.
            push: The shard of its gradient, shape (shard.layout.size,).
            reply: The shard of its snapshot, likewise.
        """
        self.pushes[worker] = self._message("float32", push)
        self.replies[worker] = self._message("float32", reply)

    def carry_out(self, order: Order) -> None:
        """Change weights, state or snapshots as an order says; others change nothing here.

        Raises:
            ProtocolError: It is for another version than the shard has come to.
            NonFiniteError: A weight is beyond what the wire can carry.
        """
        if order.kind is OrderKind.REPLY:
            self._rounding.settle(order.worker, self.replies[order.worker])
        if order.kind not in COMPUTING:
            return
        worker, facts = order.worker, order.facts
        if facts.version != self.version:
            raise ProtocolError(
                f"an order for version {facts.version} came to a server that is at version "
                f"{self.version}"
            )
        push, snapshot = self.pushes[worker], self.replies[worker].vector
        if order.kind is OrderKind.HOLD:
            self._model.hold(push.read_gradient(facts.grad_norm), order.samples, facts)
        elif order.kind is OrderKind.APPLY:
            self._model.apply(push.read_gradient(facts.grad_norm), snapshot, facts)
        elif order.kind is OrderKind.APPLY_HELD:
            self._model.apply_held(snapshot, facts)
        else:
            self._model.renew(snapshot, facts)

    def _message(self, precision: Precision, vector: Tensor) -> Message:
        layout = self.shard.layout
        if precision == "float32":
            return Message(layout.size, shared=vector)
        return NarrowMessage(layout.num_params, layout.num_stats, precision, vector=vector)

    def state_dict(self) -> dict[str, Any]:
        """Return the shard's state (``ModelState.state_dict``); samples are the leader's."""
        return self._model.state_dict()

    def take_over(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of this shard, with any number of workers."""
        self._model.take_over(state)


def _nobody_asks(samples: int) -> float:
    raise ProtocolError("the rate of an update is the leader's to say")
