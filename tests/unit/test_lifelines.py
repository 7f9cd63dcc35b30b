"""The end of a worker's process is seen by its socket, and nobody else's is taken for it."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from thread_ranks import meet

from mpi_dcasgd.drivers import lifelines
from mpi_dcasgd.drivers.lifelines import GRACE_S, Lifelines, Successors, hold_lifelines
from mpi_dcasgd.drivers.meeting import Meeting
from mpi_dcasgd.drivers.topology import Topology

WORLD = Topology("asynchronous", 2)


def hold(meeting: Meeting) -> Any:
    return hold_lifelines(meeting, WORLD, WORLD.worker_of(meeting.rank))


class Clock:
    """Seconds as a test has them; every look is later than the one before."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def server_of(found: dict[int, Any]) -> tuple[Lifelines, Clock]:
    clock = Clock()
    return Lifelines(found[0]._lines, clock), clock


def test_a_process_that_ends_is_told_once_after_a_while() -> None:
    found = meet(3, hold)
    server, clock = server_of(found)
    assert server.ended() == []
    found[2].close()
    clock.now_s = 1.0
    assert server.ended() == [], "MPI may know more of it"
    clock.now_s = 1.0 + GRACE_S
    assert server.ended() == [1]
    clock.now_s += 10.0
    assert server.ended() == []
    found[1].close()
    clock.now_s += 1.0
    server.ended()
    clock.now_s += GRACE_S
    assert server.ended() == [0]
    server.close()


def test_without_a_way_there_are_no_lifelines(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any) -> socket.socket:
        raise OSError("Connection refused")

    monkeypatch.setattr(lifelines.socket, "create_connection", refused)
    found = meet(3, hold)
    assert (found[1], found[2]) == (None, None)
    assert server_of(found)[0].ended() == []


def test_a_stranger_is_sent_away_and_no_worker_of_ours() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port, token = listener.getsockname()[1], b"t" * 16
    stranger = socket.create_connection(("127.0.0.1", port))
    stranger.sendall(b"x" * 20)
    ours = lifelines._connect("127.0.0.1", port, token, 7)
    found = lifelines._accept(listener, token, 1)
    assert list(found) == [7]
    assert stranger.recv(1) == b""
    for each in (stranger, ours, *found.values()):
        assert each is not None
        each.close()


def test_the_end_of_a_process_in_a_workers_place_is_seen() -> None:
    successors = Successors()
    listener, word = successors.invite(alone=True)
    line = lifelines._connect("127.0.0.1", word["port"], word["token"], 4)
    successors.accept(listener, word, 4, 2)
    assert line is not None
    assert not successors.ended(4, 2)
    line.close()
    assert successors.ended(4, 2)
    assert not successors.ended(4, 3)
    successors.close()
