"""Whose push in chunks comes in, how many at a time, and when one is overdue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from mpi_dcasgd.drivers.transport.gate import STALL_CHUNKS, STALL_S, Gate, Influx


@dataclass
class Push:
    inside: bool = False
    stalled: bool = False

    @property
    def flows(self) -> bool:
        return self.inside and not self.stalled

    def let_in(self) -> None:
        assert not self.inside, "it is let in once"
        self.inside = True


def drive(gate: Gate, rate: Callable[[int], float], pushes: int) -> list[int]:
    """Return the limits that a gate had, push by push, where pushes come at a rate that follows."""
    now_s, limits = 0.0, []
    for _ in range(pushes):
        now_s += 1 / rate(gate.limit)
        gate.passed(now_s)
        limits.append(gate.limit)
    return limits


def test_pushes_come_in_one_after_the_other_in_the_order_of_their_headers() -> None:
    gate, coming = Gate(3), [Push(), Push(), Push()]
    gate.let_in(coming)
    gate.let_in(coming)
    assert [push.inside for push in coming] == [True, False, False]
    gate.let_in(coming[1:])  # all of the first is here
    assert [push.inside for push in coming] == [True, True, False]


def test_a_push_that_is_overdue_keeps_nobody_out() -> None:
    gate, coming = Gate(3), [Push(), Push(), Push()]
    gate.let_in(coming)
    coming[0].stalled = True
    gate.let_in(coming)
    gate.let_in(coming)
    assert [push.inside for push in coming] == [True, True, False]


def test_one_at_a_time_is_kept_where_more_are_no_faster() -> None:
    limits = drive(Gate(4), lambda limit: 1.0 if limit == 1 else 0.6, 2000)
    assert set(limits) == {1, 2}, "two are tried"
    assert limits.count(2) < 0.1 * len(limits), "ever more seldom"


def test_as_many_come_in_as_it_takes_to_fill_the_servers_link() -> None:
    # Each worker's link has a quarter of the server's rate.
    gate = Gate(16)
    limits = drive(gate, lambda limit: min(limit, 4) / 4, 3000)
    assert limits[2000:].count(4) > 0.9 * 1000
    # The links are mended: one at a time is then as good.
    limits = drive(gate, lambda limit: 1.0, 10_000)
    assert limits[-1000:].count(1) > 0.8 * 1000


@pytest.mark.parametrize("workers", [1, 2, 40])
def test_there_are_never_more_than_workers_and_never_none(workers: int) -> None:
    limits = drive(Gate(workers), lambda limit: float(limit), 6000)
    assert (min(limits), max(limits)) == (1, min(workers, max(limits)))
    assert max(limits) > 1 or workers == 1


def test_rates_are_those_of_all_workers_and_not_of_a_few() -> None:
    # A third of the pushes take long, in turns: no pair of neighbours tells the rate.
    limits = drive(Gate(12), lambda limit: 0.2, 23)
    assert set(limits) == {1}, "the first rate is taken over two pushes of each worker"


def test_a_push_is_overdue_after_four_chunks_times_or_a_second() -> None:
    now = [0.0]
    influx = Influx(lambda: now[0])
    influx.begin()
    now[0] = STALL_S
    assert not influx.overdue
    now[0] = STALL_S + 0.1
    assert influx.overdue, "not even one chunk came"
    influx.add(1)
    assert not influx.overdue
    assert influx.chunk_s == pytest.approx(1.1)
    now[0] += STALL_CHUNKS * 1.0
    assert not influx.overdue, "chunks are slow"
    influx.begin()
    influx.add(10)
    now[0] += 1.5 * STALL_S
    assert influx.overdue
