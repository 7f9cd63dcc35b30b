"""Shards, the orders about them, and the settings that several servers cannot have."""

from __future__ import annotations

import doctest
import struct
from types import ModuleType

import pytest
import torch

from mpi_dcasgd.config.load import load_job
from mpi_dcasgd.config.plan import plan_job
from mpi_dcasgd.config.servers import reads_norm
from mpi_dcasgd.errors import ConfigError, LaunchError, ProtocolError
from mpi_dcasgd.learning.layout import ALIGN, FlatLayout
from mpi_dcasgd.pages import PAGE_BYTES, zeros
from mpi_dcasgd.rules.algorithms import resolve_rule
from mpi_dcasgd.rules.alignment import lane_of
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.rules.stretch import Stretch
from mpi_dcasgd.runs.dry_run import describe_needs
from mpi_dcasgd.server import orders, shard
from mpi_dcasgd.server.follower import Follower
from mpi_dcasgd.server.message import Message, Tag
from mpi_dcasgd.server.orders import ORDER_BYTES, CrewTag, Order, OrderKind, orders_in
from mpi_dcasgd.server.shard import (
    shards_of,
    vectors_of,
    way_of,
    with_vectors,
    without_vectors,
)

JOB = "jobs/digits.yaml"


@pytest.mark.parametrize("module", [orders, shard])
def test_the_examples_hold(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


@pytest.mark.parametrize("params", [ALIGN * 3, ALIGN * 1000, 25_557_032 // ALIGN * ALIGN])
@pytest.mark.parametrize("servers", [1, 2, 3])
def test_shards_cover_the_vector_in_order_and_are_almost_equal(params: int, servers: int) -> None:
    layout = FlatLayout((), (), params, 48)
    found = shards_of(layout, servers)
    assert [one.begin for one in found] == [0, *(one.border for one in found[:-1])]
    assert (found[-1].border, found[-1].end) == (params, layout.size)
    assert all(one.begin % ALIGN == 0 for one in found)
    sizes = [one.layout.num_params for one in found]
    assert max(sizes) - min(sizes) <= (PAGE_BYTES // 2 if params > 10**6 else ALIGN)
    assert [one.layout.num_stats for one in found] == [*(servers - 1) * [0], 48]
    if params > 10**6:
        assert all(4 * one.begin % PAGE_BYTES == 0 for one in found)


def test_every_shard_has_a_cache_line_at_least() -> None:
    with pytest.raises(ConfigError, match="got 3; allowed: up to 2 for this model, whose 32 elem"):
        shards_of(FlatLayout((), (), 2 * ALIGN, 0), 3)


def test_shards_of_many_pages_begin_with_one() -> None:
    def second(pages: float) -> float:
        page = PAGE_BYTES // 4
        return shards_of(FlatLayout((), (), int(pages * page), 0), 2)[1].begin / page

    assert second(127) == 63.5, "too few for whole ones"
    assert second(129) == 64


def test_groups_are_cut_where_shards_are() -> None:
    groups = (Stretch(0, 40, lr=0.5), Stretch(40, 96, weight_decay=0.0))
    first, second = shards_of(FlatLayout((), (), 96, 0, groups), 2)
    assert first.layout.stretches == (
        Stretch(0, 40, lr=0.5),
        Stretch(40, 48, weight_decay=0.0),
    )
    assert second.layout.stretches == (Stretch(0, 48, weight_decay=0.0),)
    halves = (Stretch(0, 48, lr=0.5), Stretch(48, 96))
    first, second = shards_of(FlatLayout((), (), 96, 0, halves), 2)
    assert first.layout.stretches == (Stretch(0, 48, lr=0.5),), "and nothing of the other"
    assert second.layout.stretches == (Stretch(0, 48),)


def test_shards_of_a_vector_that_is_worth_compiling_are_compiled_however_short() -> None:
    assert way_of(FlatLayout((), (), 1 << 18, 0), "auto") == "compiled"
    assert way_of(FlatLayout((), (), (1 << 18) - 16, 0), "auto") == "blocks"
    assert way_of(FlatLayout((), (), 1 << 18, 0), "blocks") == "blocks"


def test_an_order_travels_whole_and_anything_else_is_refused() -> None:
    facts = Facts(0.1, 0.2, 3, 4, 5, 6, 7.5)
    told = [Order(OrderKind.APPLY, 5, facts), Order(OrderKind.HOLD, 2, samples=16)]
    assert list(orders_in(b"".join(order.pack() for order in told))) == told
    with pytest.raises(ProtocolError, match="order of unknown kind 0"):
        list(orders_in(bytes(ORDER_BYTES)))
    with pytest.raises(ProtocolError, match=f"{ORDER_BYTES - 1} bytes of orders"):
        list(orders_in(bytes(ORDER_BYTES - 1)))


def test_the_bytes_of_an_order_are_part_of_the_layout() -> None:
    facts = Facts(0.5, 0.75, 3, 4, 5, 6, 7.5)
    packed = Order(OrderKind.APPLY, 5, facts, samples=16).pack()
    assert packed == struct.pack("=6q3dq", 1, 5, 16, 3, 4, 6, 0.5, 0.75, 7.5, 0)
    kinds = (
        "APPLY HOLD APPLY_HELD RENEW REPLY LAST_REPLY HAND_IN_WEIGHTS HAND_IN_STATE TAKE_OVER "
        "REPORT END"
    )
    assert {kind.name: int(kind) for kind in OrderKind} == {
        name: number for number, name in enumerate(kinds.split(), 1)
    }
    end = Order(OrderKind.END)
    assert end.pack() == struct.pack("=10q", 11, *9 * [0]), "what is not said is zero"
    assert end.facts == Facts(0.0, 0.0, 0, 0, 0, 0, 0.0)
    tags = {"ORDERS": 11, "ARRIVALS": 12, "OUTLINE": 13, "VECTOR": 14}
    assert {tag.name: int(tag) for tag in CrewTag} == tags
    assert not {*tags.values()} & {*Tag}, "workers' messages have others"


def test_a_state_travels_as_its_outline_and_its_vectors() -> None:
    (one,) = shards_of(FlatLayout((), (), 32, 0), 1)
    rule = resolve_rule("rennala", {"momentum": "nesterov"})
    follower, other = (
        Follower(torch.ones(32), one, rule, 1, torch.empty(0), "blocks") for _ in range(2)
    )
    follower.pushes[0].copy_(torch.arange(32.0))
    follower.carry_out(Order(OrderKind.HOLD, 0, samples=8))
    state = follower.state_dict()
    vectors = vectors_of(state)
    assert [float(vector[1]) for vector in vectors] == [1.0, 0.0, 1.0], "weights, velocity, held"
    outline = without_vectors(state)
    assert vectors_of(outline) == [32, 32, 32]
    made = with_vectors(outline)
    for empty, vector in zip(vectors_of(made), vectors, strict=True):
        assert not empty.any()
        empty.copy_(vector)
    other.take_over(made)
    assert without_vectors(other.state_dict()) == outline
    assert all(map(torch.equal, vectors_of(other.state_dict()), vectors))


def test_a_follower_refuses_an_order_for_another_version() -> None:
    (one,) = shards_of(FlatLayout((), (), 32, 0), 1)
    rule, none = resolve_rule("asgd"), torch.empty(0)
    follower = Follower(torch.zeros(32), one, rule, 1, none, "blocks")
    follower.pushes[0].fill_(1.0)
    follower.carry_out(Order(OrderKind.APPLY, 0, Facts(0.5, 0.5, 0, 0, 0, 1, 1.0)))
    assert torch.equal(follower.weights, torch.full((32,), -0.5))
    with pytest.raises(ProtocolError, match="for version 0 came to a server that is at version 1"):
        follower.carry_out(Order(OrderKind.APPLY, 0, Facts(0.5, 0.5, 0, 0, 0, 1, 1.0)))


def test_vectors_that_an_update_walks_together_begin_at_different_places() -> None:
    (one,) = shards_of(FlatLayout((), (), 1024, 0), 1)
    weights = zeros(1024)
    follower = Follower(weights, one, resolve_rule("dcasgd-a"), 1, torch.empty(0), "blocks")
    (state,) = follower.chain.state_dict()["compensation.mean_square"]
    places = [lane_of(vector, 0) for vector in (*follower.snapshots, *follower.pushes, state)]
    assert places == [lane_of(weights, lane) for lane in (1, 2, 3)]


@pytest.mark.parametrize("finite", [True, False, None])
def test_a_push_says_whether_its_statistics_are_finite(finite: bool | None) -> None:
    message = Message(3)
    message.write_push(version=0, ticket=0, samples=1, loss=0.0, grad_norm=1.0, stats_finite=finite)
    assert message.stats_finite is finite


def test_pieces_of_a_message_are_the_message() -> None:
    message = Message(48)
    first, second = message.piece(0, 16), message.piece(16, 48)
    assert [*first, *second] == [*message.raw]
    message.vector[16] = 1.0
    assert second.view("float32")[0] == 1.0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["transport=shared"], "servers: got 2, but memory is shared with a single server only"),
        (["wire=bf16"], "servers: got 2, but numbers travel in 16 bits to and from a"),
        (["faults.respawn=true"], "servers: got 2, but new processes in place of lost workers"),
        (
            ["algorithm=rennala", "rule.clipping=norm"],
            "servers: got 2, but this rule needs the norm of the mean of several gradients",
        ),
    ],
)
def test_what_several_servers_cannot_have_is_refused(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_job(JOB, ["servers=2", *words])
    assert any(line.startswith(told) for line in caught.value.problems), caught.value


def test_which_rules_read_the_norm() -> None:
    assert reads_norm(resolve_rule("asgd", {"clipping": {"name": "norm", "max_norm": 1e9}}))
    assert not reads_norm(resolve_rule("dcasgd-a"))
    assert load_job(JOB, ["servers=2", "rule.clipping=norm"]).servers == 2


def test_a_plan_has_the_servers() -> None:
    job = load_job(JOB, ["servers=2", "model={name: mlp, hidden: [2048, 2048]}"])
    plan = plan_job(job, 5)
    assert (plan.num_servers, plan.num_workers) == (2, 3)
    leader, follower, worker = plan.needs
    assert [need.who for need in plan.needs] == ["server", "each other server", "each worker"]
    whole = plan_job(load_job(JOB, ["model={name: mlp, hidden: [2048, 2048]}"]), 4)
    assert plan.push_bytes == pytest.approx(whole.push_bytes / 2, rel=0.01)
    mail = dict(leader.items)["a snapshot and a push of 3 workers"]
    assert mail == pytest.approx(6 * plan.push_bytes, rel=0.01)
    assert follower.total_bytes < leader.total_bytes
    assert "on the server's host" not in str(worker.items)
    text = describe_needs(job, 5)
    assert "ranks:      5; ranks 0 to 1 serve, ranks 2 to 4 train" in text
    assert "8.30 MiB a reply (float32), from and to each server" in text
    assert "0.007 s each where the link has 10 Gbit/s" in text
    assert "3 workers are of use with steps of 0.014 s or more" in text
    with pytest.raises(LaunchError, match="it needs 2 servers"):
        plan_job(job, 2)
