from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpi_dcasgd.learning import tickets
from mpi_dcasgd.learning.seeds import seeds
from mpi_dcasgd.learning.tickets import TicketPlan

plans = st.builds(
    TicketPlan,
    num_samples=st.integers(1, 60),
    batch_size=st.integers(1, 20),
    seed=st.integers(0, 5),
    epochs=st.integers(1, 3),
)


@given(plans)
def test_the_tickets_of_an_epoch_are_disjoint_and_complete(plan: TicketPlan) -> None:
    for epoch in range(plan.epochs):
        first = epoch * plan.tickets_per_epoch
        tickets = range(first, first + plan.tickets_per_epoch)
        seen = Counter(int(i) for t in tickets for i in plan.indices(t))
        assert seen == Counter(range(plan.num_samples))
        assert all(len(plan.indices(t)) == plan.size(t) >= 1 for t in tickets)
        assert {plan.epoch(t) for t in tickets} == {epoch}


@given(plans, st.integers(1, 5))
def test_parts_of_a_large_ticket_are_the_small_tickets_in_order(
    small: TicketPlan, parts: int
) -> None:
    large = TicketPlan(small.num_samples, small.batch_size * parts, small.seed, small.epochs)
    assert large.split(parts) == small
    taken = []
    for ticket in range(large.num_tickets):
        pieces = [large.parts(ticket, rank, parts) for rank in range(parts)]
        present = [p for piece in pieces for p in piece]
        lengths = [len(piece) for piece in pieces]
        assert lengths == sorted(lengths, reverse=True), "the last ranks go without"
        joined = np.concatenate([small.indices(p) for p in present])
        assert np.array_equal(joined, large.indices(ticket))
        taken += present
    assert taken == list(range(small.num_tickets))


@pytest.mark.parametrize(
    ("ticket", "expected"), [(0, ([0, 2], [1, 3])), (1, ([4, 6], [5])), (3, ([11, 13], [12]))]
)
def test_ranks_that_accumulate_take_their_parts_in_turns(
    ticket: int, expected: tuple[list[int], list[int]]
) -> None:
    small = TicketPlan(num_samples=20, batch_size=3, seed=0, epochs=2)  # 7 tickets an epoch
    large = TicketPlan(num_samples=20, batch_size=12, seed=0, epochs=2)
    assert large.split(4) == small
    assert tuple(large.parts(ticket, rank, 2, accumulate=2) for rank in range(2)) == expected


def test_orders_of_many_short_epochs_are_remembered_and_of_long_ones_three(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tickets, "_REMEMBERED", 1000)
    for samples, remembered in ((100, 10), (999, 3)):
        plan = TicketPlan(samples, 10, seed=0, epochs=20)
        first = [plan.indices(epoch * plan.tickets_per_epoch).tolist() for epoch in range(20)]
        assert len(plan._shuffles) == remembered
        assert plan.indices(0).tolist() == first[0], "made again"


def test_epochs_and_seeds_have_shuffles_of_their_own() -> None:
    plan = TicketPlan(100, 100, seed=0, epochs=2)
    other = TicketPlan(100, 100, seed=1, epochs=2)
    orders = [plan.indices(0), plan.indices(1), other.indices(0)]
    assert len({tuple(order) for order in orders}) == 3


def test_a_ticket_is_the_same_whenever_it_is_asked_for() -> None:
    plan = TicketPlan(40, 8, seed=2, epochs=30)
    before = plan.indices(3).copy(), plan.generator(3).random(4), plan.torch_seed(3)
    for ticket in range(plan.num_tickets):
        plan.indices(ticket)  # pushes epoch 0 out of the cache
    fresh = TicketPlan(40, 8, seed=2, epochs=30)
    for again in (plan, fresh):
        assert np.array_equal(again.indices(3), before[0])
        assert np.array_equal(again.generator(3).random(4), before[1])
        assert again.torch_seed(3) == before[2]


def test_tickets_differ_in_their_randomness() -> None:
    plan = TicketPlan(40, 8, seed=2, epochs=2)
    seeds = [plan.torch_seed(t) for t in range(plan.num_tickets)]
    assert len(set(seeds)) == plan.num_tickets
    assert all(0 <= seed < 2**63 for seed in seeds)
    draws = {plan.generator(t).random() for t in range(plan.num_tickets)}
    assert len(draws) == plan.num_tickets


@pytest.mark.parametrize(("samples", "batch", "per_epoch"), [(10, 3, 4), (9, 3, 3), (2, 5, 1)])
def test_the_last_ticket_may_be_short(samples: int, batch: int, per_epoch: int) -> None:
    plan = TicketPlan(samples, batch, seed=0, epochs=1)
    assert plan.tickets_per_epoch == per_epoch
    assert plan.size(per_epoch - 1) == samples - batch * (per_epoch - 1)


@given(
    samples=st.integers(1, 60),
    batch=st.integers(1, 7),
    group=st.integers(1, 5),
    epochs=st.integers(1, 3),
    data=st.data(),
)
def test_a_plan_goes_on_anywhere_with_tickets_of_another_size(
    samples: int, batch: int, group: int, epochs: int, data: st.DataObject
) -> None:
    small = TicketPlan(samples, batch, 5, epochs)
    done = data.draw(st.integers(0, small.num_tickets - 1))
    start = sum(small.size(ticket) for ticket in range(done))
    plan = TicketPlan(samples, batch * group, 5, epochs, start)
    parts = [
        part
        for ticket in range(plan.num_tickets)
        for rank in range(group)
        for part in plan.parts(ticket, rank, group)
    ]
    assert parts == list(range(done, small.num_tickets))
    assert sum(plan.size(ticket) for ticket in range(plan.num_tickets)) + start == epochs * samples
    for ticket in range(plan.num_tickets):
        found = [part for rank in range(group) for part in plan.parts(ticket, rank, group)]
        mine = np.concatenate([small.indices(part) for part in found])
        assert np.array_equal(plan.indices(ticket), mine)


@given(st.tuples(*[st.integers(0, 2**32 - 1)] * 3), st.lists(st.integers(0, 2**32 - 1)))
def test_many_seeds_are_those_of_numpys_sequences(
    key: tuple[int, int, int], last: list[int]
) -> None:
    sequences = [np.random.SeedSequence([*key, number]) for number in last]
    expected = [int(sequence.generate_state(1, np.uint64)[0]) for sequence in sequences]
    assert seeds(key, np.array(last, dtype=np.uint32)).tolist() == expected


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32, 2**70])
def test_a_tickets_seed_follows_from_job_epoch_and_place(seed: int) -> None:
    plan = TicketPlan(num_samples=10, batch_size=4, seed=seed, epochs=5)
    for ticket in (14, 0, 1, 13, 5, 0):  # more epochs than are remembered
        sequence = np.random.SeedSequence([seed, 2, ticket // 3, ticket % 3])
        assert plan.torch_seed(ticket) == int(sequence.generate_state(1, np.uint64)[0]) >> 1
