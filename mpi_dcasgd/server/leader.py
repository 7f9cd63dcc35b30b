"""The leading server's model: a shard of its own, and orders to those that have the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from mpi_dcasgd.errors import ProtocolError
from mpi_dcasgd.learning.layout import FlatLayout
from mpi_dcasgd.rules.chain import Chain, Rule
from mpi_dcasgd.rules.fuse import Fuse
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.server.model_state import ModelState
from mpi_dcasgd.server.orders import Order, OrderKind
from mpi_dcasgd.server.passage import Passage
from mpi_dcasgd.server.shard import grown, shards_of, vectors_of, way_of


class Crew(Protocol):
    """The servers that follow, as the leader reaches them."""

    @property
    def num_servers(self) -> int:
        """Number of servers, the leader included."""

    def tell(self, order: Order) -> None:
        """Give all of them an order; they have had it, or will have it in its turn."""

    def hand_in(self, order: Order, wholes: Sequence[Tensor]) -> None:
        """Have all of them hand in vectors as they are at this order.

        Args:
            order: Which vectors.
            wholes: Whole vectors, in the order of ``vectors_of``; what lies beyond the leader's
                own shard is filled in.
        """

    def hand_out(self, order: Order, states: Sequence[Mapping[str, Any]]) -> None:
        """Give each of them a state to continue from, one a follower."""


class LeadingModel:
    """A model that is divided among servers, as its leader sees it.

    It does what ``ModelState`` does, with the leader's shard; whatever changes weights or
    snapshots is ordered first, so that the others are at work at the same time.

    Args:
        weights: Initial ``[parameters | statistics]`` of the whole model, shape (layout.size,).
            Its own shard is updated in place; the rest is what was handed in last.
        layout: Layout of the whole.
        rule: Rule that applies gradients.
        schedule: Learning rate by samples applied.
        num_workers: Number of workers.
        stats_rate: Share by which running statistics move towards pushed ones, (num_stats,).
        fuse: Way in which an update is computed.
        crew: The other servers.

    Attributes:
        shards: Of all servers, in order; the first is the leader's.
    """

    def __init__(
        self,
        weights: Tensor,
        layout: FlatLayout,
        rule: Rule,
        schedule: Callable[[int], float],
        num_workers: int,
        stats_rate: Tensor,
        fuse: Fuse,
        crew: Crew,
    ) -> None:
        self.shards = shards_of(layout, crew.num_servers)
        self._layout = layout
        self._shard = own = self.shards[0]
        self._whole = weights
        self._whole_at = 0
        self._crew = crew
        rate = stats_rate[: own.layout.num_stats]
        self._own = ModelState(
            own.of(weights), own.layout, rule, schedule, num_workers, rate, way_of(layout, fuse)
        )

    @property
    def layout(self) -> FlatLayout:
        """Layout of the leader's shard, which pushes to it and replies from it have."""
        return self._own.layout

    @property
    def chain(self) -> Chain:
        """The rule at work on the leader's shard."""
        return self._own.chain

    @property
    def version(self) -> int:
        """Number of updates so far."""
        return self._own.version

    @property
    def samples(self) -> int:
        """Number of samples applied so far; counted by the server."""
        return self._own.samples

    @samples.setter
    def samples(self, number: int) -> None:
        self._own.samples = number

    @property
    def num_held(self) -> int:
        """Number of gradients that are held for a common step."""
        return self._own.num_held

    @property
    def weights(self) -> Tensor:
        """All weights at the present version; the others are asked for theirs once a version."""
        if self._whole_at != self.version:
            self._crew.hand_in(Order(OrderKind.HAND_IN_WEIGHTS), [self._whole])
            self._whole_at = self.version
        return self._whole

    def facts(self, worker: int, staleness: int, grad_norm: float) -> Facts:
        """Return what the rule is told about a push."""
        return self._own.facts(worker, staleness, grad_norm)

    def apply(
        self, vector: Tensor, snapshot: Tensor, facts: Facts, passage: Passage | None = None
    ) -> float:
        """Make one update, as ``ModelState.apply``; the others cannot take one back.

        Raises:
            ProtocolError: The push comes in chunks.
        """
        if passage is not None:
            raise ProtocolError("a push to several servers cannot come in chunks")
        self._crew.tell(Order(OrderKind.APPLY, facts.worker, facts))
        return self._own.apply(vector, snapshot, facts)

    def hold(self, vector: Tensor, samples: int, facts: Facts) -> None:
        """Keep a gradient for a common step, as ``ModelState.hold``."""
        self._crew.tell(Order(OrderKind.HOLD, facts.worker, facts, samples))
        self._own.hold(vector, samples, facts)

    def apply_held(self, snapshot: Tensor, facts: Facts) -> float:
        """Make one update along the mean of the held gradients."""
        self._crew.tell(Order(OrderKind.APPLY_HELD, facts.worker, facts))
        return self._own.apply_held(snapshot, facts)

    def send(self, worker: int, snapshot: Tensor) -> None:
        """Renew a worker's snapshot without an update."""
        self.renew(snapshot, self.facts(worker, 0, 0.0))

    def renew(self, snapshot: Tensor, facts: Facts) -> None:
        """Renew a snapshot without an update, as ``ModelState.renew``."""
        self._crew.tell(Order(OrderKind.RENEW, facts.worker, facts))
        self._own.renew(snapshot, facts)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the whole, which is that of a single server."""
        state = grown(self._own.state_dict(), self._shard, self._layout)
        self._crew.hand_in(Order(OrderKind.HAND_IN_STATE), vectors_of(state))
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Refuse a state that has workers: the others' snapshots are not part of it.

        Raises:
            ProtocolError: Always.
        """
        raise ProtocolError("servers that share a model resume with new workers only (take_over)")

    def take_over(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of a whole, with any number of workers and of servers."""
        self._hand_out(state)
        self._own.take_over(self._shard.cut(state))

    def _hand_out(self, state: Mapping[str, Any]) -> None:
        self._whole.copy_(state["weights"])
        self._whole_at = state["version"]
        cut = [shard.cut(state) for shard in self.shards[1:]]
        self._crew.hand_out(Order(OrderKind.TAKE_OVER), cut)
