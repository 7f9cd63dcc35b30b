from __future__ import annotations

import signal

from mpi_dcasgd.drivers.stopping import StopFlag
from mpi_dcasgd.drivers.waiting import LONGEST_S, SPIN_S, Backoff


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


def test_pauses_grow_to_a_limit_and_start_over_after_an_arrival() -> None:
    clock = Clock(poll_s=SPIN_S / 10)
    backoff = Backoff(clock, clock.sleep)
    for _ in range(30):
        backoff.pause()
    assert clock.sleeps == sorted(clock.sleeps)
    assert clock.sleeps[-1] == LONGEST_S
    assert 5 <= 30 - len(clock.sleeps) <= 12, "the first polls do not sleep at all"
    backoff.reset()
    before = len(clock.sleeps)
    backoff.pause()
    assert len(clock.sleeps) == before


def test_waiting_for_a_second_polls_about_a_thousand_times_rather_than_all_the_time() -> None:
    clock = Clock(poll_s=1e-6)
    backoff = Backoff(clock, clock.sleep)
    while clock.now < 1.0:
        backoff.pause()
    assert len(clock.sleeps) < 1100
    assert sum(clock.sleeps) > 0.99


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
