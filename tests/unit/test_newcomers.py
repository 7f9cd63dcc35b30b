"""New processes in place of workers that are gone, with peers that are made up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mpi_dcasgd.drivers import newcomers as module
from mpi_dcasgd.drivers.fault_settings import FaultSettings, check_respawn
from mpi_dcasgd.drivers.newcomers import CONNECT_S, OVER, SET_UP_S, SETTLED, TRIES, Newcomers
from mpi_dcasgd.errors import LaunchError

FACTS = {"PyTorch": "2.9", "training samples": "1437"}


class Peer:
    """A process that says what the test has it say."""

    def __init__(self) -> None:
        self.saying: Mapping[str, Any] | None = None
        self.answers: list[str] = []

    def said(self) -> Mapping[str, Any] | None:
        said, self.saying = self.saying, None
        return said

    def answer(self, text: str) -> None:
        self.answers.append(text)

    def is_ready(self, **facts: str) -> None:
        self.saying = {"facts": {**FACTS, **facts}, "host": "b", "device": "cpu"}


class Site:
    """Starts processes as the test says, and keeps the lines that people are told."""

    def __init__(self, start: Callable[[int, int], Any] | None = None) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.peers: list[Peer] = []
        self.asked: list[tuple[int, int]] = []
        self.newcomers = Newcomers(
            start or self.start, FACTS, "worker {}".format, self.lines.append, lambda: self.now
        )

    def start(self, worker: int, number: int) -> Any:
        self.asked.append((worker, number))
        self.peers.append(Peer())
        return self.peers[-1]

    def replace(self, worker: int) -> Peer:
        """Start a process and wait until it can be spoken to."""
        self.newcomers.replace(worker)
        self.started()
        return self.peers[-1]

    def started(self) -> None:
        for thread in threading.enumerate():
            if thread.name.startswith("newcomer-"):
                thread.join()

    def pass_time(self, seconds: float) -> list[Any]:
        found: list[Any] = []
        for _ in range(int(seconds) + 1):  # longer looks do not count in full
            self.now += 1.0
            found += self.newcomers.look()
        return found


def test_a_newcomer_that_has_all_alike_is_welcome_and_takes_the_workers_place() -> None:
    site = Site()
    peer = site.replace(2)
    assert site.newcomers.look() == []
    assert site.newcomers.coming
    peer.is_ready()
    (arrival,) = site.newcomers.look()
    assert (arrival.worker, arrival.number, arrival.host, arrival.device) == (2, 1, "b", "cpu")
    assert arrival.peer is peer
    assert peer.answers == [""]
    assert not site.newcomers.coming
    assert site.lines == ["a new process is started in place of worker 2"]


def test_a_newcomer_with_other_code_or_data_is_sent_home_and_no_other_is_tried() -> None:
    site = Site()
    peer = site.replace(0)
    peer.is_ready(**{"training samples": "1436"})
    assert site.newcomers.look() == []
    assert peer.answers == ["it does not belong to this run"]
    assert site.lines[-1] == (
        "the new process in place of worker 0 failed: it does not belong to this run, and no other "
        "is tried:\n  training samples: 1437 on the server; 1436 on the new process (b)"
    )
    site.newcomers.replace(1)
    assert site.asked == [(0, 1)]
    assert not site.newcomers.coming


def test_what_fails_again_and_again_is_given_up_and_told() -> None:
    site = Site()
    site.replace(1)
    for _ in range(TRIES):
        site.peers[-1].saying = {"error": "DataError: the disk is not mounted"}
        assert site.newcomers.look() == []
        site.started()
    assert site.asked == [(1, number) for number in range(1, TRIES + 1)]
    assert not site.newcomers.coming
    assert site.lines[-2] == (
        "the new process in place of worker 1 failed: DataError: the disk is not mounted"
    )
    assert site.lines[-1] == (
        f"worker 1 is not replaced again: of {TRIES} processes that were started for it in a row, "
        f"none came to {SETTLED} gradients; see their logs"
    )
    site.replace(0)
    assert site.asked[-1] == (0, 1), "another worker has tries of its own"


def test_a_process_that_dies_soon_counts_as_failed_and_one_that_works_does_not() -> None:
    site = Site()

    def live(pushes: int) -> None:
        site.replace(0).is_ready()
        assert len(site.newcomers.look()) == 1
        for _ in range(pushes):
            site.newcomers.heard(0)

    for _ in range(TRIES - 1):
        live(SETTLED - 1)
    live(SETTLED)
    for _ in range(TRIES):
        live(SETTLED - 1)
    count = len(site.asked)
    site.newcomers.replace(0)
    assert len(site.asked) == count == 2 * TRIES


def test_a_launcher_that_fails_is_told_and_tried_again() -> None:
    started: list[int] = []

    def start(worker: int, number: int) -> Any:
        started.append(number)
        raise RuntimeError("no such host")

    site = Site(start)
    site.newcomers.replace(0)
    for _ in range(TRIES):
        site.started()
        site.newcomers.look()
    assert started == [1, 2, 3]
    assert "it could not be started (RuntimeError: no such host)" in site.lines[1]


def test_a_process_that_never_starts_mpi_does_not_keep_the_next_one_from_it() -> None:
    never = threading.Event()
    asked: list[int] = []

    def start(worker: int, number: int) -> Any:
        asked.append(number)
        if number == 1:
            never.wait()
        return Peer()

    site = Site(start)
    try:
        site.newcomers.replace(0)
        site.pass_time(CONNECT_S - 2)
        assert asked == [1]
        site.pass_time(2)
        assert "it did not come up within 60 s" in site.lines[1]
        assert site.newcomers.coming
    finally:
        never.set()
    site.started()
    assert asked == [1, 2]


def test_a_process_that_hangs_while_it_loads_its_data_is_given_up() -> None:
    site = Site()
    site.replace(0)
    site.pass_time(SET_UP_S - 2)
    assert len(site.asked) == 1
    site.pass_time(2)
    assert "it was not ready within 300 s" in site.lines[1]
    site.started()
    assert len(site.asked) == 2


def test_a_process_whose_socket_says_that_it_ended_is_not_waited_for() -> None:
    gone: set[tuple[int, int]] = set()
    site = Site()
    site.newcomers._ended = lambda worker, number: (worker, number) in gone
    site.replace(0)
    assert site.newcomers.look() == []
    gone.add((0, 1))
    assert site.newcomers.look() == []
    assert site.lines[1].endswith("failed: it died while it was setting itself up")
    site.started()
    assert site.asked == [(0, 1), (0, 2)]


def test_time_in_which_the_server_was_suspended_is_not_held_against_anybody() -> None:
    site = Site()
    site.replace(0)
    site.now += 10 * SET_UP_S
    site.newcomers.look()
    assert len(site.asked) == 1


def test_nobody_is_needed_in_place_of_a_worker_that_has_come_back() -> None:
    site = Site()
    peer = site.replace(0)
    site.newcomers.cancel(0)
    assert not site.newcomers.coming
    peer.is_ready()
    assert site.newcomers.look() == []
    assert peer.answers == [OVER]
    other = site.replace(1)
    site.newcomers.cancel(1)
    other.saying = {"error": "it died"}
    site.newcomers.look()
    site.replace(2)
    site.newcomers.cancel(2)
    site.pass_time(SET_UP_S)
    assert len(site.asked) == 3, "what is not needed is not started again"
    assert not [line for line in site.lines if "failed" in line]


def test_those_that_are_not_ready_at_the_end_are_sent_home() -> None:
    site = Site()
    peer = site.replace(0)
    site.newcomers.dismiss()
    assert peer.answers == [OVER]


def test_the_end_does_not_wait_for_ever_for_a_process_that_does_not_come_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_LEAVE_S", 0.01)
    never = threading.Event()
    site = Site(lambda worker, number: never.wait())
    site.newcomers.replace(0)
    site.newcomers.dismiss()
    assert not site.newcomers.coming
    never.set()


def test_a_world_that_does_not_outlive_its_workers_cannot_replace_them() -> None:
    check_respawn(FaultSettings(respawn=True), "asynchronous", fault_tolerant=True)
    check_respawn(FaultSettings(respawn=True), "synchronous", fault_tolerant=False)
    check_respawn(FaultSettings(), "asynchronous", fault_tolerant=False)
    with pytest.raises(LaunchError, match=r"faults.respawn.*--fault-tolerant"):
        check_respawn(FaultSettings(respawn=True), "asynchronous", fault_tolerant=False)
