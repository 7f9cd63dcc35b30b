"""What a launcher leaves running: it ends itself, or is ended, and nothing else is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from mpi_dcasgd.tools.launch import leftovers
from mpi_dcasgd.tools.launch.leftovers import MARK, end_leftovers

Start = Callable[..., "subprocess.Popen[bytes]"]
RANK = {"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a program of Python with variables; it is ready when it has said so."""
    started = []

    def begin(code: str, **env: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", f"print(1, flush=True); {code}"],
            env={**os.environ, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_nothing_left_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpi_dcasgd.tools.launch.leftovers.time.sleep", pytest.fail)
    assert end_leftovers("nobody has this mark") == []


def test_what_stays_is_killed_and_others_are_not(start: Start) -> None:
    worker = start("input()", **{MARK: "a", **RANK, "OMPI_COMM_WORLD_RANK": "1"})
    other = start("input()", **{MARK: "b"})
    assert end_leftovers("a", worker_s=0.0) == [worker.pid]
    assert worker.wait() == -signal.SIGKILL
    assert other.poll() is None


def test_the_server_is_waited_for_longer(start: Start) -> None:
    # It ends when the worker beside it is gone: by then only the worker may have been killed.
    worker = start("input()", **{MARK: "c", **RANK, "OMPI_COMM_WORLD_RANK": "1"})
    code = f"import os\nwhile os.path.exists('/proc/{worker.pid}/fd'): pass"
    wait = f"exec({code!r})"
    server = start(wait, **{MARK: "c", **RANK, "OMPI_COMM_WORLD_RANK": "0"})
    threading.Thread(target=worker.wait).start()  # or the worker's folder in /proc stays
    assert end_leftovers("c", worker_s=0.0, server_s=60.0) == [worker.pid]
    assert server.wait() == 0


def test_at_once_means_the_server_too(start: Start) -> None:
    server = start("input()", **{MARK: "d", **RANK, "OMPI_COMM_WORLD_RANK": "0"})
    assert end_leftovers("d", at_once=True) == [server.pid]
    assert server.wait() == -signal.SIGKILL


def test_a_number_that_is_anothers_by_now_is_not_killed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = start("input()", **{MARK: "e"})
    looks = iter([[(other.pid, 1), (os.getpid(), 1)], []])
    monkeypatch.setattr(leftovers, "_marked", lambda mark: next(looks))
    assert end_leftovers("f", worker_s=0.0) == []
    assert other.poll() is None
