"""Servers that share a model, in one process: orders are carried out at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mpi_dcasgd.learning.layout import FlatLayout
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.server.follower import Follower
from mpi_dcasgd.server.orders import Order, OrderKind, orders_in
from mpi_dcasgd.server.precision import WireSettings
from mpi_dcasgd.server.push import Answer, Push
from mpi_dcasgd.server.server import ParameterServer
from mpi_dcasgd.server.shard import shards_of, vectors_of, way_of
from mpi_dcasgd.server.wire import NarrowMessage


class LocalCrew:
    """Followers in this process."""

    def __init__(
        self,
        weights: Tensor,
        layout: FlatLayout,
        rule: Rule,
        workers: int,
        stats_rate: Tensor,
        servers: int,
        wire: WireSettings | None = None,
    ) -> None:
        self.num_servers = servers
        self.shards = shards_of(layout, servers)
        self.told: list[Order] = []
        self.asked: list[OrderKind] = []
        self.followers = [
            Follower(
                shard.of(weights).clone(),
                shard,
                rule,
                workers,
                stats_rate[: shard.layout.num_stats],
                way_of(layout, "auto"),
                wire,
            )
            for shard in self.shards[1:]
        ]

    def tell(self, order: Order) -> None:
        (order,) = orders_in(order.pack())
        self.told.append(order)
        for follower in self.followers:
            follower.carry_out(order)

    def hand_in(self, order: Order, wholes: Sequence[Tensor]) -> None:
        self.asked.append(order.kind)
        for follower in self.followers:
            all_of_it = vectors_of(follower.state_dict())
            mine = all_of_it[:1] if order.kind is OrderKind.HAND_IN_WEIGHTS else all_of_it
            for whole, vector in zip(wholes, mine, strict=True):
                follower.shard.of(whole).copy_(vector)

    def hand_out(self, order: Order, states: Sequence[Mapping[str, Any]]) -> None:
        for follower, state in zip(self.followers, states, strict=True):
            follower.take_over(state)


class SharedServer:
    """A leader and its followers, driven like one server that has the whole model."""

    def __init__(
        self,
        weights: Tensor,
        layout: FlatLayout,
        rule: Rule,
        plan: TicketPlan,
        schedule: Callable[[int], float],
        workers: int,
        stats_rate: Tensor,
        ahead: int = 0,
        servers: int = 2,
        wire: WireSettings | None = None,
    ) -> None:
        self.crew = LocalCrew(weights, layout, rule, workers, stats_rate, servers, wire)
        given = weights, layout, rule, plan, schedule, workers, stats_rate, ahead
        self.server = ParameterServer(*given, crew=self.crew, wire=wire)

    def snapshot(self, worker: int) -> Tensor:
        """What a worker was sent, of all servers."""
        theirs = [follower.replies[worker].vector for follower in self.crew.followers]
        return torch.cat([self.server.slots[worker].snapshot, *theirs])

    def push(self, worker: int, push: Push) -> Answer:
        """Deliver a gradient of the whole model, as rounding leaves it."""
        for follower in self.crew.followers:
            message, part = follower.pushes[worker], follower.shard.of(push.vector)
            if isinstance(message, NarrowMessage):
                message.pack(push.grad_norm, part)
            else:
                message.vector.copy_(part)
        own = self.crew.shards[0].of(push.vector)
        answer = self.server.push(worker, push._replace(vector=own))
        self.reply(answer.ready)
        return answer

    def reply(self, ready: list[int]) -> list[int]:
        """Send replies that are ready, as a driver does."""
        for worker in ready:
            working = self.server.slots[worker].status == "working"
            self.crew.tell(Order(OrderKind.REPLY if working else OrderKind.LAST_REPLY, worker))
        return ready
