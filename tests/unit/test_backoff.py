from __future__ import annotations

import os
import signal

from mpi_dcasgd.drivers.backoff import (
    CROWDED_SPIN_S,
    FRACTION,
    LONGEST_S,
    SPIN_S,
    Backoff,
    spin_s,
)
from mpi_dcasgd.drivers.signals import StopFlag


class Clock:
    """Time that passes only when somebody sleeps or polls."""

    def __init__(self, poll_s: float) -> None:
        self.now = 0.0
        self.poll_s = poll_s
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        self.now += self.poll_s
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.sleeps.append(seconds)


def test_polls_without_sleeping_at_first_then_for_a_fraction_of_the_time_waited() -> None:
    clock = Clock(poll_s=5e-6)
    backoff = Backoff(50e-6, clock, clock.sleep)
    for _ in range(10):
        backoff.pause()
    assert set(clock.sleeps) == {0.0}
    started = 5e-6
    for _ in range(200):
        before = clock.now
        backoff.pause()
        assert clock.sleeps[-1] <= FRACTION * (before + clock.poll_s - started) + 1e-12
    assert clock.sleeps[-1] > 100e-6
    backoff.reset()
    backoff.pause()
    assert clock.sleeps[-1] == 0.0


def test_waiting_for_a_second_polls_about_a_thousand_times_rather_than_all_the_time() -> None:
    clock = Clock(poll_s=1e-6)
    backoff = Backoff(50e-6, clock, clock.sleep)
    while clock.now < 1.0:
        backoff.pause()
    assert max(clock.sleeps) == LONGEST_S
    assert len(clock.sleeps) < 1200
    assert sum(clock.sleeps) > 0.99


def test_ranks_that_share_cores_give_way_sooner() -> None:
    cores = len(os.sched_getaffinity(0))
    assert spin_s(cores) == SPIN_S
    assert spin_s(cores + 1) == CROWDED_SPIN_S


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
