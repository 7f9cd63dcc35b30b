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
from mpi_dcasgd.drivers.link import Carrier
from mpi_dcasgd.errors import ConfigError, LaunchError, NonFiniteError, ProtocolError
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
from mpi_dcasgd.server.precision import Precision, WireSettings
from mpi_dcasgd.server.shard import (
    shards_of,
    vectors_of,
    way_of,
    with_vectors,
    without_vectors,
)
from mpi_dcasgd.server.wire import Wire, round_gradient

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
    told = [
        Order(OrderKind.APPLY, 5, facts),
        Order(OrderKind.HOLD, 5, facts, samples=16),
        Order(OrderKind.REPLY, 2),
    ]
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
    follower.pushes[0].vector.copy_(torch.arange(32.0))
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
    follower.pushes[0].vector.fill_(1.0)
    follower.carry_out(Order(OrderKind.APPLY, 0, Facts(0.5, 0.5, 0, 0, 0, 1, 1.0)))
    assert torch.equal(follower.weights, torch.full((32,), -0.5))
    with pytest.raises(ProtocolError, match="for version 0 came to a server that is at version 1"):
        follower.carry_out(Order(OrderKind.APPLY, 0, Facts(0.5, 0.5, 0, 0, 0, 1, 1.0)))


@pytest.mark.parametrize("lines", [7, 8])  # of float32: stretches begin within one of 16 bits
@pytest.mark.parametrize("stats", [0, 5])
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_what_a_worker_sends_is_what_each_server_receives(
    lines: int, stats: int, precision: Precision
) -> None:
    layout = FlatLayout((), (), lines * ALIGN, stats)
    wire, shards = WireSettings(push=precision, reply=precision), shards_of(layout, 3)
    carrier = Carrier(precision, [shard.borders for shard in shards])
    grad = torch.randn(layout.size, generator=torch.Generator().manual_seed(1)) * 1e-6
    norm = float(grad[: layout.num_params].norm())
    carrier.vector.copy_(grad)
    carrier.write(carrier.vector, norm)
    assert torch.equal(carrier.statistics, grad[layout.num_params :])
    leader, rule = Wire.of(wire, shards[0].layout.num_params).push_message(), resolve_rule("asgd")
    followers = [
        Follower(torch.zeros(one.layout.size), one, rule, 1, torch.zeros(stats), "blocks", wire)
        for one in shards[1:]
    ]
    messages = [leader, *(follower.pushes[0] for follower in followers)]
    bodies = [leader.raw, *(message.body for message in messages[1:])]
    for body, sent in zip(bodies, carrier.buffers, strict=True):
        assert len(body) == len(sent)
        body[:] = sent
    whole = torch.cat([message.read_gradient(norm) for message in messages])
    round_gradient(grad[: layout.num_params], precision, norm)
    assert torch.equal(whole, grad)


def test_a_follower_that_cannot_send_a_weight_says_so() -> None:
    (one,) = shards_of(FlatLayout((), (), 32, 0), 1)
    wire, rule, none = WireSettings(reply="fp16"), resolve_rule("asgd"), torch.empty(0)
    follower = Follower(torch.full((32,), 7e4), one, rule, 2, none, "blocks", wire)
    follower.carry_out(Order(OrderKind.RENEW, 1, Facts(0.5, 0.5, 0, 0, 1, 2, 0.0)))
    with pytest.raises(NonFiniteError, match="a weight that worker 1 was to be sent is beyond"):
        follower.carry_out(Order(OrderKind.REPLY, 1))


def test_vectors_that_an_update_walks_together_begin_at_different_places() -> None:
    (one,) = shards_of(FlatLayout((), (), 1024, 0), 1)
    weights = zeros(1024)
    follower = Follower(weights, one, resolve_rule("dcasgd-a"), 1, torch.empty(0), "blocks")
    (state,) = follower.chain.state_dict()["compensation.mean_square"]
    vectors = follower.replies[0].vector, follower.pushes[0].vector, state
    places = [lane_of(vector, 0) for vector in vectors]
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


def test_a_plan_knows_who_holds_the_vectors_of_workers() -> None:
    mail, read = "a snapshot and a push of 3 workers", "a push as float32"
    words = ["servers=2", "model={name: mlp, hidden: [2048, 2048]}"]
    ways = ["transport=messages"], ["transport=shared"], ["transport=messages", "wire=bf16"]
    plans = [plan_job(load_job(JOB, [*words, *way]), 5) for way in ways]
    apart, shared, narrow = ([dict(need.items) for need in plan.needs] for plan in plans)
    both = apart[0][mail] + apart[1][mail]
    assert shared[0][mail] == pytest.approx(both, rel=0.01)
    assert mail not in shared[1]
    assert narrow[0][mail] == pytest.approx(apart[0][mail], rel=0.01)  # a snapshot and 16 bits
    assert narrow[0][read] + narrow[1][read] == narrow[0]["the weights"]
    assert plans[2].push_bytes == pytest.approx(plans[0].push_bytes / 2, rel=0.01)


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
    assert "on the server's host they are the server's" in str(worker.items)
    text = describe_needs(job, 5)
    assert "ranks:      5; ranks 0 to 1 serve, ranks 2 to 4 train" in text
    assert "8.30 MiB a reply (float32), from and to each server" in text
    assert "0.007 s each where the link has 10 Gbit/s" in text
    assert "3 workers are of use with steps of 0.014 s or more" in text
    with pytest.raises(LaunchError, match="it needs 2 servers"):
        plan_job(job, 2)
