"""The kernel's table of connections, and the peers in it that confirm nothing."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from mpi_dcasgd.tools.launch.unanswered import silent_peers, unanswered


def line(remote: str, timer: int, retried: int, inode: int) -> str:
    waiting = f"0000000F:00000000 {timer:02X}:00000A2C {retried:08X}"
    return f"   0: 01004D0A:D431 {remote}:1E61 01 {waiting}  1000        0 {inode} 2 0"


@pytest.mark.skipif(sys.byteorder != "little", reason="the lines were written on such a machine")
@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("03004D0A", "10.77.0.3"),
        ("0000000000000000FFFF000003004D0A", "10.77.0.3"),
        ("B80D0120000000000000000003000000", "2001:db8::3"),
    ],
)
def test_a_peer_that_confirms_nothing_is_found(remote: str, expected: str) -> None:
    assert silent_peers([line(remote, 1, 5, 7)], {7}) == [expected]


@pytest.mark.parametrize(
    "entry",
    [
        line("03004D0A", 1, 4, 7),  # it may just be busy
        line("03004D0A", 2, 5, 7),  # keepalive, of which mpirun tells
        line("03004D0A", 1, 5, 8),  # another process's
    ],
)
def test_others_are_not(entry: str) -> None:
    assert silent_peers([entry], {7}) == []


def test_a_process_whose_peers_answer_waits_for_none() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as connection,
    ):
        connection.sendall(b"heard")
        assert unanswered(os.getpid(), retries=0) == []
    assert unanswered(2**22 + 1) == []  # there is none
