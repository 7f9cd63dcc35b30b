"""A step that waits for all ranks: who hangs, dies or fails in it is named, and nobody waits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from thread_ranks import HOST, meet

from mpi_dcasgd.drivers import collective
from mpi_dcasgd.drivers.collective import collectively
from mpi_dcasgd.drivers.meeting import Meeting
from mpi_dcasgd.errors import RanksLostError

TITLE = "setting up the group"


def stepping(step: Callable[[int], Any]) -> Callable[[Meeting], Any]:
    def act(meeting: Meeting) -> Any:
        meeting.doing = TITLE
        return collectively(meeting, lambda: step(meeting.rank))

    return act


def test_each_rank_has_its_result_once_all_have_come() -> None:
    all_there = threading.Barrier(3)

    def step(rank: int) -> int:
        all_there.wait(20)
        return 10 * rank

    assert meet(3, stepping(step), 20.0) == {0: 0, 1: 10, 2: 20}


def test_the_same_ranks_can_meet_and_step_again() -> None:
    def act(meeting: Meeting) -> Any:
        first = collectively(meeting, lambda: meeting.rank)
        met = meeting.allgather(first)
        return met, collectively(meeting, lambda: "again")

    assert meet(2, act, 20.0) == {rank: ([0, 1], "again") for rank in range(2)}


def test_an_error_on_one_rank_is_everybodys_though_the_others_would_wait_for_ever() -> None:
    never = threading.Event()

    def step(rank: int) -> None:
        if rank == 1:
            raise OSError("no route to host")
        never.wait()

    found = meet(3, stepping(step), 20.0)
    never.set()
    assert {type(error) for error in found.values()} == {RanksLostError}
    assert {str(error) for error in found.values()} == {
        f"rank 1 on {HOST}: OSError: no route to host"
    }
    assert [found[rank].told for rank in range(3)] == [False, True, True]
    assert isinstance(found[1].__cause__, OSError)


@pytest.mark.parametrize("silent", [0, 2])
def test_a_rank_that_is_silent_is_named(silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collective, "_APART_S", 0.2)
    never = threading.Event()

    def act(meeting: Meeting) -> Any:
        if meeting.rank == silent:  # as a process that is stopped
            never.wait(20)
            return None
        return stepping(lambda rank: never.wait())(meeting)

    def release(meeting: Meeting) -> Any:
        try:
            return act(meeting)
        finally:
            if meeting.rank == (1 if silent == 2 else 2):
                never.set()

    found = meet(3, release, 0.5)
    text = f"rank {silent} on {HOST} hangs during start-up, while {TITLE}: silent for 0."
    for rank in {0, 1, 2} - {silent}:
        assert isinstance(found[rank], RanksLostError)
        assert str(found[rank]).startswith(text)


def test_ranks_that_are_all_there_do_not_wait_for_ever_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    never = threading.Event()
    monkeypatch.setattr(collective, "SILENT_S", 0.4)
    found = meet(2, stepping(lambda rank: never.wait() if rank else None), 0.5)
    never.set()
    text = f"all ranks are there, but {TITLE} has not ended on rank 1 on {HOST} after "
    assert {str(error).startswith(text) for error in found.values()} == {True}


def test_a_death_is_told_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    never, told = threading.Event(), (f"rank 2 on {HOST} died", [2])
    monkeypatch.setattr(Meeting, "death", lambda self, error: told)

    def act(meeting: Meeting) -> Any:
        if meeting.rank == 0:
            probe = meeting.comm.iprobe

            def iprobe(source: int, tag: int) -> bool:
                if source == 2 and tag == collective._TO_SERVER:
                    raise OSError
                return probe(source, tag)

            meeting.comm.iprobe = iprobe  # type: ignore[method-assign]
        return stepping(lambda rank: never.wait())(meeting) if meeting.rank < 2 else None

    found = meet(3, act, 20.0)
    never.set()
    assert [str(found[rank]) for rank in (0, 1)] == [told[0]] * 2
    assert [found[rank].told for rank in (0, 1)] == [False, True]
