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
from mpi_dcasgd.server.push import Answer, Push
from mpi_dcasgd.server.server import ParameterServer
from mpi_dcasgd.server.shard import shards_of, vectors_of, way_of


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
    ) -> None:
        self.crew = LocalCrew(weights, layout, rule, workers, stats_rate, servers)
        self.server = ParameterServer(
            weights, layout, rule, plan, schedule, workers, stats_rate, ahead, crew=self.crew
        )

    def snapshot(self, worker: int) -> Tensor:
        """What a worker was sent, of all servers."""
        theirs = [follower.snapshots[worker] for follower in self.crew.followers]
        return torch.cat([self.server.slots[worker].snapshot, *theirs])

    def push(self, worker: int, push: Push) -> Answer:
        """Deliver a gradient of the whole model."""
        for follower in self.crew.followers:
            follower.pushes[worker].copy_(follower.shard.of(push.vector))
        own = self.crew.shards[0].of(push.vector)
        return self.server.push(worker, push._replace(vector=own))
