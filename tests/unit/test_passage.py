"""Pushes that come in chunks: the bits of one piece, and no trace of one that breaks off."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from toy import World

from mpi_dcasgd.drivers.transport.chunks import GRAIN, MOST, cuts_of
from mpi_dcasgd.learning.groups import Grouping, ParameterGroup
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.server.passage import BrokenOffError
from mpi_dcasgd.server.precision import Precision, WireSettings
from mpi_dcasgd.server.records import Action

CHUNK_MB = 0.0002  # 48 elements


class Chunks:
    """A passage that brings one chunk after the other, until one does not come."""

    def __init__(self, world: World, lacks: int | None = None, worker: int = 0) -> None:
        self.server = world.server
        self.reply = world.server.slots[worker].message.vector
        self.before: dict[str, Any] = {}  # of the push, and after the worker's forward pass
        self.number = len(world.server.cuts) + 1
        self.lacks = lacks
        self.asked: list[int] = []
        self.left: list[int] = []
        self.sent: list[Tensor] = []

    def arrive(self, chunk: int) -> bool:
        self.before = self.before or self.server.state_dict()
        if chunk == self.lacks:
            raise BrokenOffError("gone")
        self.asked.append(chunk)
        return len(self.asked) == self.number

    def arrive_all(self) -> None:
        for chunk in range(self.number):
            self.arrive(chunk)

    def leave(self, chunk: int) -> None:
        self.left.append(chunk)
        ends = [0, *self.server.cuts, len(self.reply)]
        self.sent.append(self.reply[ends[chunk] : ends[chunk + 1]].clone())


def worlds(algorithm: str, **options: Any) -> tuple[World, World]:
    """One whose pushes come in chunks, and one whose pushes come in one piece."""
    made = [World(2, algorithm, batchnorm=True, chunk_mb=mb, **options) for mb in (CHUNK_MB, 0)]
    assert len(made[0].server.cuts) == 2
    assert not made[1].server.cuts
    for world in made:
        world.join()
    return made[0], made[1]


def assert_same(found: Any, expected: Any, name: str = "") -> None:
    if isinstance(expected, Tensor):
        assert torch.equal(found, expected), name
    elif isinstance(expected, Mapping):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(found[key], value, f"{name}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for place, value in enumerate(expected):
            assert_same(found[place], value, f"{name}[{place}]")
    else:
        assert found == expected, name


HALVES = Grouping(groups=(ParameterGroup(match=("*.weight",), lr=0.5),))


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("asgd", {}),
        ("dcasgd-a", {}),
        ("dana", {}),
        ("rennala", {}),
        ("ringmaster", {"rule": {"admission": {"threshold": 1}}}),
        ("dcasgd-c", {"ahead": 2, "grouping": HALVES}),
        ("dcasgd-a", {"wire": WireSettings(push="fp16", reply="fp16")}),
        ("dana", {"wire": WireSettings(reply="bf16")}),
        ("rennala", {"wire": WireSettings(push="bf16", reply="bf16")}),
    ],
)
def test_chunks_have_the_bits_of_one_piece(algorithm: str, options: dict[str, Any]) -> None:
    apart, whole = worlds(algorithm, **options)
    for worker in (0, 1, 0, 0, 1, 1, 0, 1):
        passage = Chunks(apart, worker=worker)
        mine = apart.step(worker, passage, stats_finite=True)
        assert mine == whole.step(worker)
        assert passage.asked == [0, 1, 2]
        early = mine.record.action is Action.APPLIED and algorithm != "rennala"
        assert passage.left == ([0, 1, 2] if early else [])
        if early:
            assert torch.equal(torch.cat(passage.sent), passage.reply), "as the whole reply is"
        assert_same(apart.server.state_dict(), whole.server.state_dict())


@pytest.mark.parametrize("reply", ["float32", "bf16"])
@pytest.mark.parametrize("algorithm", ["dcasgd-a", "dana", "rennala"])
@pytest.mark.parametrize("lacks", [0, 1, 2])
def test_a_push_that_breaks_off_has_changed_nothing(
    algorithm: str, lacks: int, reply: Precision
) -> None:
    apart, whole = worlds(algorithm, wire=WireSettings(reply=reply))
    for worker in (0, 1, 0):
        passage = Chunks(apart, lacks)
        with pytest.raises(BrokenOffError):
            apart.step(worker, passage, stats_finite=True)
        assert passage.asked == list(range(lacks))
        assert_same(apart.server.state_dict(), passage.before)
        # It comes again, and is applied as if nothing had been.
        assert apart.step(worker, Chunks(apart), stats_finite=True) == whole.step(worker)
        assert_same(apart.server.state_dict(), whole.server.state_dict())


def test_a_push_that_breaks_off_does_not_bring_back_an_earlier_one() -> None:
    apart, whole = worlds("dcasgd-a")
    with pytest.raises(BrokenOffError):
        apart.step(0, Chunks(apart, 2), stats_finite=True)
    assert apart.step(1) == whole.step(1), "in one piece, so that nothing is kept of it"
    passage = Chunks(apart, 0)
    with pytest.raises(BrokenOffError):
        apart.step(0, passage, stats_finite=True)
    assert_same(apart.server.state_dict(), passage.before)


@pytest.mark.parametrize(
    ("changes", "action"),
    [
        ({"stats_finite": None}, Action.APPLIED),
        ({"stats_finite": False}, Action.NONFINITE),
        ({"stats_finite": True, "grad_norm": float("inf")}, Action.NONFINITE),
    ],
)
def test_what_the_header_does_not_settle_waits_for_all_chunks(
    changes: dict[str, Any], action: Action
) -> None:
    apart, _ = worlds("dcasgd-a")
    before = apart.server.weights.clone()
    passage = Chunks(apart)
    assert apart.step(0, passage, **changes).record.action is action
    assert passage.asked == [0, 1, 2]
    assert passage.left == []
    assert torch.equal(apart.server.weights, before) is (action is Action.NONFINITE)


def test_who_is_certain_to_get_work_is_known_before_the_update() -> None:
    apart, _ = worlds("asgd")
    while apart.server.goes_on(0):
        assert 0 in apart.step(0).ready
    assert 0 not in apart.step(0).ready, "the last ticket is worker 1's"
    ahead = World(1, plan=TicketPlan(16, 8, 0, 1), ahead=1)
    ahead.join()
    assert ahead.server.goes_on(0), "it has another ticket already"
    ahead.step(0)
    assert not ahead.server.goes_on(0)
    halted = World(1)
    halted.join()
    halted.server.halt()
    assert not halted.server.goes_on(0)
    bound = World(2, "ssp", chunk_mb=CHUNK_MB)
    bound.join()
    assert not bound.server.goes_on(0), "whether it must wait depends on the others"


@pytest.mark.parametrize("size", [1, GRAIN, 1000, 270_000, 25_600_000, 10**9])
@pytest.mark.parametrize("choice", ["auto", 0, 1e-9, 0.001, 4])
def test_chunks_cover_the_vector_in_whole_cache_lines(choice: Any, size: int) -> None:
    cuts = cuts_of(choice, size)
    ends = [0, *cuts, size]
    lengths = [end - begin for begin, end in pairwise(ends)]
    assert min(lengths) > 0
    assert len(lengths) <= MOST
    assert all(cut % GRAIN == 0 for cut in cuts)
    assert len(set(lengths)) <= 2, "each length is compiled"
    if choice == 0 or (choice == "auto" and size < 4_000_000):
        assert not cuts
