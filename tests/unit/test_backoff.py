from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.drivers import backoff as backoff_module
from mpi_dcasgd.drivers import world
from mpi_dcasgd.drivers.backoff import (
    BURST,
    CROWDED_LONGEST_S,
    CROWDED_SPIN_S,
    FRACTION,
    IDLE_LONGEST_S,
    LONGEST_S,
    NAPS,
    SPIN_S,
    Backoff,
    spin_s,
    usable_cores,
    wait_until,
)
from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.drivers.transport.place import Place


class Clock:
    """Time that passes only when somebody sleeps, gives way or looks at it."""

    def __init__(self, look_s: float) -> None:
        self.now = 0.0
        self.look_s = look_s
        self.sleeps: list[float] = []
        self.given_way = 0

    def __call__(self) -> float:
        self.now += self.look_s
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.sleeps.append(seconds)

    def give_way(self) -> None:
        self.given_way += 1

    def backoff(self, spin_s: float) -> Backoff:
        return Backoff(spin_s, self, self.sleep, self.give_way)


class Polls:
    """Something that is polled and comes to nothing, and when."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.at: list[tuple[float, int]] = []

    def __call__(self) -> list[int]:
        self.at.append((self.clock.now, self.clock.given_way))
        return []


def test_nothing_is_done_between_the_polls_of_a_burst() -> None:
    clock = Clock(look_s=5e-6)
    polls, backoff = Polls(clock), clock.backoff(SPIN_S)
    for _ in range(3):
        assert backoff.attempt(polls) == []
        backoff.pause()
    assert polls.at == [(n * 5e-6, n) for n in range(3) for _ in range(BURST)]


def test_what_is_found_ends_a_burst() -> None:
    answers = iter([[], [2], []])
    assert Clock(0.0).backoff(SPIN_S).attempt(lambda: next(answers)) == [2]
    assert next(answers) == []


def test_polls_in_bursts_at_first_then_sleeps_for_a_fraction_of_the_time_waited() -> None:
    clock = Clock(look_s=5e-6)
    polls, backoff = Polls(clock), clock.backoff(CROWDED_SPIN_S)
    for number in range(10):
        backoff.attempt(polls)
        backoff.pause()
        assert clock.given_way == number + 1
    assert clock.sleeps == []
    started = 5e-6
    for _ in range(200):
        slept = len(clock.sleeps)
        backoff.attempt(polls)
        backoff.pause()
        for seconds in clock.sleeps[slept:]:
            assert seconds <= FRACTION * (clock.now - started) + 1e-12
    assert len(clock.sleeps) == 1 + 199 * NAPS, "one after each poll, but for the first burst"
    assert clock.sleeps[-1] > 100e-6
    backoff.reset()
    backoff.attempt(polls)
    backoff.pause()
    assert (clock.given_way, len(clock.sleeps)) == (11, 1 + 199 * NAPS)


@pytest.mark.parametrize(
    ("spin_s", "longest_s", "most_sleeps"),
    [(CROWDED_SPIN_S, CROWDED_LONGEST_S, 1250), (SPIN_S, IDLE_LONGEST_S, 3550)],
)
def test_waiting_for_a_second_sleeps_rather_than_polls(
    spin_s: float, longest_s: float, most_sleeps: int
) -> None:
    clock = Clock(look_s=1e-6)
    backoff = clock.backoff(spin_s)
    wait_for = Polls(clock)
    while clock.now < 1.0:
        backoff.attempt(wait_for)
        backoff.pause()
    assert max(clock.sleeps) == longest_s
    assert len(clock.sleeps) < most_sleeps
    assert sum(clock.sleeps) > 0.98


@pytest.mark.parametrize(
    ("waited_s", "longest_s"),
    [(0.05, LONGEST_S), (0.099, LONGEST_S), (0.1, IDLE_LONGEST_S), (60.0, IDLE_LONGEST_S)],
)
def test_a_rank_with_a_core_of_its_own_pauses_longer_once_it_is_idle(
    waited_s: float, longest_s: float
) -> None:
    clock = Clock(look_s=0.0)
    polls, backoff = Polls(clock), clock.backoff(SPIN_S)
    backoff.pause()
    clock.now = waited_s
    backoff.pause()
    backoff.attempt(polls)
    assert clock.sleeps == [longest_s] * NAPS
    backoff.reset()
    backoff.pause()
    clock.now += 0.05
    backoff.pause()
    assert clock.sleeps[NAPS:] == [LONGEST_S], "something came: it is not idle any more"


def test_waiting_ends_with_the_poll_that_finds_something(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(look_s=1e-6)
    monkeypatch.setattr(backoff_module, "Backoff", clock.backoff)
    polled = []

    def done() -> bool:
        polled.append(clock.given_way)
        return len(polled) == 2 * BURST + 1

    wait_until(done, SPIN_S)
    assert polled == [0] * BURST + [1] * BURST + [2]


def test_ranks_that_share_cores_give_way_sooner() -> None:
    assert spin_s(2, 2) == SPIN_S
    assert spin_s(3, 2) == CROWDED_SPIN_S
    assert spin_s(2, 1.5) == CROWDED_SPIN_S


@pytest.mark.parametrize(
    ("text", "granted"),
    [("150000 100000\n", 1.5), ("max 100000\n", math.inf), ("", math.inf), (None, math.inf)],
)
def test_a_containers_share_of_cores_is_read(
    tmp_path: Path, text: str | None, granted: float
) -> None:
    quota = tmp_path / "cpu.max"
    if text is not None:
        quota.write_text(text)
    assert usable_cores(quota) == (os.sched_getaffinity(0), granted)


def test_ranks_that_are_bound_to_a_core_each_have_one_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Place.here()
    here = (place.host, place.kernel)

    class Ranks:
        rank = 0

        def __init__(self, *others: Any) -> None:
            self.others = others

        def allgather(self, mine: Any) -> list[Any]:
            return [mine, *self.others]

    cores, granted = frozenset({0}), math.inf
    monkeypatch.setattr(world, "usable_cores", lambda: (cores, granted))
    bound = (here, frozenset({1})), (here, frozenset({2}))
    assert world.host_spin_s(Ranks(*bound)) == SPIN_S
    assert world.host_spin_s(Ranks(*bound, (here, frozenset({0})))) == CROWDED_SPIN_S
    assert world.host_spin_s(Ranks((("another", place.kernel), frozenset({0})))) == SPIN_S
    granted = 2.0
    assert world.host_spin_s(Ranks(*bound)) == CROWDED_SPIN_S


def test_a_signal_only_sets_the_flag() -> None:
    flag = StopFlag()
    before = signal.getsignal(signal.SIGUSR1)
    try:
        flag.listen([signal.SIGUSR1])
        assert not flag
        signal.raise_signal(signal.SIGUSR1)
        assert flag
        assert flag.signum == signal.SIGUSR1
    finally:
        signal.signal(signal.SIGUSR1, before)
