"""The world that tests share: what it calls, and that one that hangs takes no other test along."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shared_world import SharedWorld

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(120)]


@pytest.fixture
def world(processes: Any) -> Iterator[SharedWorld]:
    """One of its own, for this kills it."""
    world = SharedWorld(processes)
    yield world
    world.close()


def values(world: SharedWorld, *words: Any, **options: Any) -> list[Any]:
    return [answer.value for answer in world(*words, **options)]


def test_functions_are_called_on_the_first_ranks(
    world: SharedWorld, processes: Any, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "import os, sys\n"
        "def look(comm, word):\n"
        "    print(word, comm.rank)\n"
        "    print('aside', file=sys.stderr)\n"
        "    return comm.size, comm.allreduce(comm.rank), os.getcwd()\n"
    )
    answers = world("mine:look", "rank", ranks=3, cwd=tmp_path, path=[tmp_path])
    assert [answer.value for answer in answers] == 3 * [[3, 3, str(tmp_path)]]
    assert [answer.stdout for answer in answers] == ["rank 0\n", "rank 1\n", "rank 2\n"]
    assert {answer.stderr for answer in answers} == {"aside\n"}
    started = {process.pid for process in processes.alive()}
    # What was imported from the folder is forgotten, and so are folder and path.
    (tmp_path / "mine.py").write_text("def look(comm):\n    return comm.size\n")
    assert values(world, "mine:look", path=[tmp_path]) == 5 * [5]
    with pytest.raises(pytest.fail.Exception, match="No module named 'mine'"):
        world("mine:look")
    assert started.isdisjoint({process.pid for process in processes.alive()})


HANG = "def hang(comm):\n    import signal\n    comm.Barrier()\n    signal.pause()\n"
FAIL = (
    "def fail(comm):\n"
    "    if comm.rank == 1:\n"
    "        raise OSError('a lightning struck')\n"
    "    comm.Barrier()\n"
    "def abort(comm):\n"
    "    import sys\n"
    "    if comm.rank == 1:\n"
    "        print('no more', file=sys.stderr)\n"
    "        comm.Abort(3)\n"
    "    comm.Barrier()\n"
    "def size(comm):\n"
    "    return comm.size\n"
)


@pytest.mark.parametrize(
    ("function", "told"),
    [("fail", "rank 1: .*a lightning struck"), ("abort", "mpirun has ended|a rank has ended")],
)
def test_a_rank_that_fails_ends_the_world_and_the_next_test_has_another(
    world: SharedWorld, processes: Any, tmp_path: Path, function: str, told: str
) -> None:
    (tmp_path / "mine.py").write_text(FAIL)
    with pytest.raises(pytest.fail.Exception, match=f"(?s){told}") as caught:
        world(f"mine:{function}", path=[tmp_path])
    assert ("no more" in str(caught.value)) == (function == "abort")
    assert not processes.alive()
    assert values(world, "mine:size", ranks=2, path=[tmp_path]) == [2, 2]


def test_a_world_that_hangs_is_killed_when_its_time_is_up(
    world: SharedWorld, processes: Any, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(HANG + FAIL)
    world("mine:size", path=[tmp_path])
    with pytest.raises(pytest.fail.Exception, match="its time is up"):
        world("mine:hang", path=[tmp_path], timeout=0.2)
    assert not processes.alive()
    assert values(world, "mine:size", path=[tmp_path]) == 5 * [5]


def test_a_world_that_hangs_is_killed_by_the_tests_own_limit(
    world: SharedWorld, processes: Any, tmp_path: Path
) -> None:
    """pytest-timeout raises in the main thread, out of a signal's handler."""
    interrupt = (
        "def interrupt(comm):\n"
        "    import os, signal\n"
        "    comm.Barrier()\n"
        "    if comm.rank == 0:\n"
        f"        os.kill({os.getpid()}, signal.SIGUSR2)\n"
        "    signal.pause()\n"
    )
    (tmp_path / "mine.py").write_text(interrupt + FAIL)
    world("mine:size", path=[tmp_path])

    def limit(*args: Any) -> None:
        raise TimeoutError("the test's")

    before = signal.signal(signal.SIGUSR2, limit)
    try:
        with pytest.raises(TimeoutError, match="the test's"):
            world("mine:interrupt", path=[tmp_path])
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert not processes.alive()
    assert values(world, "mine:size", path=[tmp_path]) == 5 * [5]
