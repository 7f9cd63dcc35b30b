"""A rank that dies, ends or hangs before MPI has begun is named, and its world does not wait."""

from __future__ import annotations

import os
import socket
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mpi_dcasgd.cli.train import _setup_patience_s
from mpi_dcasgd.drivers import start_guard
from mpi_dcasgd.drivers.launcher_above import LauncherAbove, find_launcher, stopped_rank
from mpi_dcasgd.drivers.start_guard import Work

RANK = """
import os, signal, sys, time

from mpi_dcasgd.drivers import start_guard

start_guard._ASK_S, start_guard._OTHERS_S, start_guard._LAST_WORDS_S = 0.0, 0.0, 0.2
start_guard.begin_guard(3, lambda: 0.5)
for act in sys.argv[1:]:
    if act == "begins":
        start_guard.mpi_begins()
    elif act == "up":
        start_guard.mpi_has_begun()
        assert not os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children") or not open(
            f"/proc/{os.getpid()}/task/{os.getpid()}/children"
        ).read(), "the guard is gone, and no zombie"
    elif act == "bye":
        start_guard.ends_by_itself()
    elif act == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif act == "hangs":
        time.sleep(1000)
    elif act == "stops":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif act == "works":
        time.sleep(1)
"""
LAUNCHER = """#!/bin/sh
"$@" &
test "$ALONE" || exec sleep 1000 &
other=$!
trap 'kill -KILL $other; exit 143' TERM
wait
echo over
"""
NAME = f"rank 3 on {socket.gethostname()}"


@pytest.fixture
def started(processes: Any, tmp_path: Path) -> Callable[..., Any]:
    """Starts such a rank below a launcher that waits for another one, or for it alone."""
    launcher = tmp_path / "mpirun"
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)
    rank = tmp_path / "rank.py"
    rank.write_text(RANK)

    def start(*acts: str, fault_tolerant: bool = True, alone: bool = False) -> Any:
        env = {"OMPI_MCA_mpi_ft_enable": "1" if fault_tolerant else "0"}
        env |= {"ALONE": "1"} if alone else {}
        return processes.run([launcher, sys.executable, rank, *acts], env=env)

    return start


@pytest.mark.parametrize("acts", [["killed"], ["begins", "killed"]])
def test_a_rank_that_is_killed_is_named_and_the_launcher_is_ended(
    started: Callable[..., Any], acts: list[str]
) -> None:
    finished = started(*acts)
    assert finished.status == 143, finished
    assert finished.stderr == (
        f"{NAME} died before MPI had begun, and the others wait for it: ending the run\n"
    )


def test_a_rank_that_ends_by_itself_has_said_why_and_the_others_are_not_left_waiting(
    started: Callable[..., Any],
) -> None:
    finished = started("bye")
    assert finished.status == 143, finished
    assert finished.stderr == f"{NAME} ended before MPI had begun, and the others wait for it\n"


def test_a_launcher_that_ends_by_itself_is_left_to_it(started: Callable[..., Any]) -> None:
    finished = started("bye", alone=True)
    assert (finished.status, finished.stderr) == (0, ""), finished


@pytest.mark.parametrize(
    ("acts", "text"),
    [
        (["hangs"], f"{NAME} hangs before MPI has begun; waited for "),
        (["begins", "hangs"], f"MPI does not begin on {NAME}: another rank hangs, or died, "),
        (["begins", "stops"], f"{NAME} hangs before MPI has begun; waited for "),
    ],
)
@pytest.mark.parametrize("fault_tolerant", [True, False])
def test_a_rank_that_hangs_is_named_and_killed(
    started: Callable[..., Any], acts: list[str], text: str, fault_tolerant: bool
) -> None:
    # A launcher without fault tolerance ends the others itself, as this one has none.
    finished = started(*acts, fault_tolerant=fault_tolerant, alone=not fault_tolerant)
    assert finished.status == (143 if fault_tolerant else 0), finished
    assert finished.stderr.startswith(text), finished


@pytest.mark.parametrize(
    ("state", "parent", "variable", "told"),
    [
        ("T", 9, "OMPI_COMM_WORLD_RANK", 4),
        ("S", 9, "OMPI_COMM_WORLD_RANK", None),
        ("T", 8, "OMPI_COMM_WORLD_RANK", None),  # of another launcher
        ("T", 9, "SOMETHING", None),  # no rank
    ],
)
def test_a_rank_of_this_host_that_was_stopped_is_found(
    tmp_path: Path, state: str, parent: int, variable: str, told: int | None
) -> None:
    world = {"OMPI_COMM_WORLD_SIZE": "5", variable: "4", "OMPI_COMM_WORLD_LOCAL_RANK": "4"}
    for pid, words in {7: "S 9 7 7 0 -1", 12: f"{state} {parent} 7 7 0 -1"}.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a (rank) name) {words}\n")
        environment = "\0".join(f"{name}={value}" for name, value in world.items())
        (tmp_path / str(pid) / "environ").write_text(environment)
    assert stopped_rank(7, tmp_path) == told


@pytest.mark.parametrize(("words", "ended"), [(b"iu", 0), (b"u", 0), (b"i", 1), (b"", 1)])
def test_what_a_rank_said_before_it_went_is_still_heard(
    words: bytes, ended: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMPI_MCA_mpi_ft_enable", "1")
    told: list[int] = []
    launcher = SimpleNamespace(end=lambda: told.append(1))
    reading, writing = os.pipe()
    os.write(writing, words)
    os.close(writing)
    # Not the parent of this process: the rank has gone before its guard comes to look.
    start_guard._watch(reading, os.getpid(), NAME, launcher, lambda: 900.0)  # type: ignore[arg-type]
    os.close(reading)
    assert len(told) == ended
    assert ("died before MPI had begun" in capfd.readouterr().err) == bool(ended)


def test_once_mpi_has_begun_the_guard_is_gone(started: Callable[..., Any]) -> None:
    finished = started("begins", "up", "works", "killed", alone=True)
    assert (finished.stdout, finished.stderr) == ("over\n", ""), finished


def test_a_rank_that_waits_for_a_core_is_not_taken_to_hang(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    stat, tick_s = tmp_path / "7" / "stat", 1 / os.sysconf("SC_CLK_TCK")

    def at(state: str, ticks: int) -> None:
        stat.write_text(f"7 (a (rank) name) {state} 1 7 7 0 -1 0 0 0 0 0 {ticks} 2 0 0 20 0\n")

    at("R", 0)
    work = Work(7, tmp_path)
    assert work.counted_s(0.2) == 0.0, "it is given no time"
    at("R", 3)
    assert work.counted_s(0.2) == pytest.approx(3 * tick_s), "it computes a little"
    at("R", 1000)
    assert work.counted_s(0.2) == 0.2, "and on several cores"
    for state in "STD":
        at(state, 1000)
        assert work.counted_s(0.2) == 0.2, "it waits for something else"
        assert work.stopped is (state == "T")
    stat.unlink()
    assert work.counted_s(0.2) == 0.2, "it has ended"


def test_the_patience_is_the_jobs() -> None:
    def asked(*words: str) -> float:
        return _setup_patience_s(Namespace(job=Path("jobs/digits.yaml"), overrides=list(words)))

    assert asked() == asked("no override") == 900.0
    assert asked("faults.setup_patience=30") == 30.0
    assert asked("faults.setup_patience=never") == float("inf")


def test_no_other_process_is_taken_for_a_launcher() -> None:
    assert find_launcher() is None
    assert not LauncherAbove(1, "mpirun").alive()
