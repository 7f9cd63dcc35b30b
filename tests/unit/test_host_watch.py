"""A host from which nothing comes has the run saved, and only then."""

from __future__ import annotations

import math

from mpi_dcasgd.drivers.host_watch import HostWatch


class Played:
    """Silences of workers, a patience for all, and a clock that each look moves on."""

    def __init__(self, hosts: str, patience_s: float = 60.0) -> None:
        self.silences = [0.0] * len(hosts.split())
        self._patience_s = patience_s
        self._now = 0.0
        self.told: list[str] = []
        self.watch = HostWatch(hosts.split(), "h1", self, self.told.append, self._clock)

    def _clock(self) -> float:
        self._now += 1.0
        return self._now

    def silent_s(self, worker: int) -> float:
        return self.silences[worker]

    def patience_s(self, worker: int) -> float:
        return self._patience_s

    def look(self, *silences: float) -> bool:
        self.silences = list(silences)
        return self.watch.save_now()


def test_each_quarter_of_the_patience_has_the_run_saved_once() -> None:
    played = Played("h1 h2 h2")
    found = [played.look(0, second, second) for second in range(61)]
    assert [second for second, save in enumerate(found) if save] == [15, 30, 45, 60]
    assert played.told == ["nothing comes from h2 any more: saving the run"]


def test_one_slow_worker_is_no_silent_host() -> None:
    played = Played("h1 h2 h2 h3")
    assert not played.look(0, 59, 14, 0)
    assert played.look(0, 59, 15, 0)


def test_the_servers_own_host_cannot_be_cut_off() -> None:
    assert not Played("h1 h1").look(59, 59)


def test_a_host_that_is_back_is_watched_anew() -> None:
    played = Played("h2")
    assert [played.look(s) for s in (15, 16, 0, 15)] == [True, False, False, True]
    assert len(played.told) == 2


def test_without_a_patience_it_is_a_quarter_of_a_minute() -> None:
    played = Played("h2", math.inf)
    assert [played.look(s) for s in (14, 15, 29, 30)] == [False, True, False, True]
