"""How long a worker may be silent: by its own steps, and only while somebody looks."""

from __future__ import annotations

import math

import pytest

from mpi_dcasgd.config.load import load_job
from mpi_dcasgd.drivers import patience
from mpi_dcasgd.drivers.fault_settings import FaultSettings
from mpi_dcasgd.drivers.patience import Watch
from mpi_dcasgd.errors import ConfigError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A watch that is looked at every tenth of a second."""

    def __init__(self, wanted: object = "auto", workers: int = 2) -> None:
        self.clock = Clock()
        self.watch = Watch(FaultSettings(patience=wanted), workers, self.clock)  # type: ignore[arg-type]

    def pass_s(self, seconds: float) -> set[int]:
        """Let time pass; who was found silent on the way."""
        found: set[int] = set()
        for _ in range(round(seconds * 10)):
            self.clock.now += 0.1
            found |= set(self.watch.look())
        return found

    def step(self, worker: int, seconds: float) -> None:
        self.watch.asked(worker)
        self.pass_s(seconds)
        self.watch.heard(worker)


def test_a_worker_may_be_silent_for_so_many_of_its_own_longest_steps() -> None:
    watched = Watched()
    watched.step(0, 5.0)
    watched.step(0, 1.0)
    watched.step(1, 0.1)
    assert watched.watch.patience_s(0) == pytest.approx(patience.STEPS * 5.0, rel=0.01)
    assert watched.watch.patience_s(1) == patience.FLOOR_S
    watched.watch.asked(0)
    watched.watch.asked(1)
    assert watched.pass_s(patience.FLOOR_S - 1) == set()
    assert watched.pass_s(2) == {1}
    watched.watch.forget(1)
    assert watched.pass_s(patience.STEPS * 5 - patience.FLOOR_S - 2) == set()
    assert watched.pass_s(2) == {0}


def test_a_first_step_is_given_more_time() -> None:
    watched = Watched()
    watched.watch.asked(0)
    assert watched.pass_s(patience.FIRST_S - 1) == set()
    assert watched.pass_s(2) == {0}


def test_seconds_are_taken_as_they_are_and_never_is_never() -> None:
    watched = Watched(0.5)
    watched.step(0, 3.0)
    watched.watch.asked(0)
    assert watched.pass_s(0.3) == set()
    assert watched.pass_s(0.4) == {0}
    never = Watched("never")
    never.watch.asked(0)
    assert never.watch.patience_s(0) == math.inf
    assert never.pass_s(2 * patience.FIRST_S) == set()


def test_nobody_is_waited_for_who_was_not_asked() -> None:
    watched = Watched(1.0)
    assert watched.pass_s(5) == set()
    assert watched.watch.silent_s(0) == 0.0
    watched.watch.heard(0)
    assert watched.watch.patience_s(0) == 1.0


def test_time_in_which_nobody_looked_is_not_the_workers_fault() -> None:
    watched = Watched(5.0)
    watched.watch.asked(0)
    watched.clock.now += 1000.0  # the server was stopped, or its host was suspended
    assert watched.watch.look() == []
    assert watched.pass_s(3.5) == set()
    assert watched.pass_s(1) == {0}


@pytest.mark.parametrize("wanted", ["auto", 100.0, "never"])
def test_a_run_that_is_to_stop_has_less_patience(wanted: object) -> None:
    watched = Watched(wanted)
    watched.step(0, 5.0)
    watched.watch.asked(0)
    watched.watch.asked(1)
    watched.watch.hurry()
    assert watched.pass_s(patience.STOP_FLOOR_S + 0.5) == {1}
    watched.watch.forget(1)
    assert watched.pass_s(patience.STOP_STEPS * 5 - patience.STOP_FLOOR_S - 1.5) == set()
    assert watched.pass_s(1.5) == {0}


def test_a_run_that_is_to_stop_has_no_more_patience_than_before() -> None:
    watched = Watched(0.5)
    watched.watch.hurry()
    watched.watch.asked(0)
    assert watched.pass_s(0.7) == {0}


@pytest.mark.parametrize("value", ["0", "-1", ".inf", "soon", "null", "true"])
def test_other_patience_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"faults\.patience"):
        load_job("jobs/digits.yaml", [f"faults.patience={value}"])
    assert load_job("jobs/digits.yaml", ["faults.patience=5"]).faults.patience == 5
