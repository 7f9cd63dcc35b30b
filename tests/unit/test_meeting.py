"""Start-up does not wait for ever for a rank that hangs, and says which one it is."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from thread_ranks import HOST, Comm, Request, meet

from mpi_dcasgd.config.check import try_job
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers import meeting as meetings
from mpi_dcasgd.drivers.meeting import Meeting, own_copy
from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.drivers.startup import together
from mpi_dcasgd.errors import DataError, LaunchError, RanksLostError, StartError
from mpi_dcasgd.runs.group_faults import watchers
from mpi_dcasgd.runs.rank import Rank


def test_all_ranks_hear_what_all_say_and_what_rank_0_says() -> None:
    def act(meeting: Meeting) -> Any:
        said = meeting.allgather(f"I am {meeting.rank}")
        return said, meeting.bcast(meeting.rank + 7), meeting.bcast(list(range(meeting.rank, 3)))

    said = ["I am 0", "I am 1", "I am 2"]
    assert meet(3, act) == {rank: (said, 7, [0, 1, 2]) for rank in range(3)}


def test_a_rank_that_does_not_come_is_named_on_all_others_and_told_once() -> None:
    def act(meeting: Meeting) -> Any:
        meeting.doing = "reading the data"
        if meeting.rank == 1:
            return None  # it never comes again
        return meeting.allgather(1)

    found = meet(4, act, 1.0)
    for rank in (0, 2, 3):
        assert isinstance(found[rank], RanksLostError)
        text = str(found[rank])
        assert text.startswith(f"rank 1 on {HOST} hangs during start-up, while reading the data:")
        assert found[rank].told == (rank != 0)


def test_a_rank_0_that_does_not_come_is_named_by_the_others_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(meetings, "_APART_S", 0.5)
    ended = []

    def act(meeting: Meeting) -> Any:
        if meeting.rank == 0:
            return None
        try:
            meeting.barrier()
        finally:
            ended.append(meeting.rank)

    found = meet(3, act, 1.0)
    assert ended == [1, 2]
    for rank in (1, 2):
        assert str(found[rank]).startswith("rank 0 on ")
        assert found[rank].hung
        assert not found[rank].told


def test_a_rank_0_that_waits_for_another_is_not_held_to_hang() -> None:
    late = threading.Event()

    def act(meeting: Meeting) -> str:
        if meeting.rank == 2:  # by more than the patience of rank 1, but not by rank 0's
            late.wait(1.0)
        meeting.barrier()
        return "met"

    def patient(meeting: Meeting) -> str:
        if meeting.rank == 0:
            meeting._settings = meetings.FaultSettings(patience="never")
        return act(meeting)

    assert meet(3, patient, 0.5) == {0: "met", 1: "met", 2: "met"}


def test_those_that_are_waited_for_are_named_once_long_before_the_end(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(meetings, "TOLD_S", 0.1)
    told = threading.Event()
    genuine = meetings._say

    def say(text: str) -> None:
        genuine(text)
        told.set()

    monkeypatch.setattr(meetings, "_say", say)

    def act(meeting: Meeting) -> None:
        meeting.doing = "reading the data"
        if meeting.rank == 1:
            assert told.wait(20)
        meeting.barrier()

    meet(2, act)
    text = capfd.readouterr().err
    assert text.count("waiting for rank 1 on") == 1
    assert "reading the data takes long there" in text


def test_an_exception_of_one_rank_is_everybodys_with_its_rank_and_host() -> None:
    def fail(meeting: Meeting) -> None:
        if meeting.rank == 1:
            raise MemoryError

    found = meet(3, lambda meeting: together(meeting, lambda: fail(meeting)))
    assert {str(error) for error in found.values()} == {str(found[0])}
    assert all(isinstance(error, StartError) for error in found.values())
    assert str(found[0]).startswith("start-up failed\n  rank 1 on ")
    assert str(found[0]).endswith(": MemoryError")
    assert isinstance(found[1].__cause__, MemoryError)


def test_an_exit_of_the_users_code_is_an_exception_like_others() -> None:
    def leave(meeting: Meeting) -> None:
        if meeting.rank == 0:
            raise SystemExit(3)

    found = meet(2, lambda meeting: together(meeting, lambda: leave(meeting)))
    assert str(found[1]).endswith(": SystemExit: 3")


@pytest.mark.parametrize(("both", "kind"), [(True, DataError), (False, LaunchError)])
def test_a_users_mistake_stays_one(both: bool, kind: type[Exception]) -> None:
    def fail(meeting: Meeting) -> None:
        if both or meeting.rank == 1:
            raise DataError("no such folder")

    found = meet(2, lambda meeting: together(meeting, lambda: fail(meeting)))
    assert {type(error) for error in found.values()} == {kind}
    assert "no such folder" in str(found[0])


JOB: dict[str, Any] = {"algorithm": "ssgd", "epochs": 1, "batch_size": 8, "lr": 0.1}
JOB |= {"model": {"name": "mlp"}, "data": {"name": "digits"}}


def group_job() -> Job:
    job, problems = try_job(JOB, name="x")
    assert job, problems
    return job


def test_a_rank_finds_those_on_its_host_without_an_operation_that_waits_for_ever() -> None:
    job = group_job()
    # The communicator of these ranks has no collective operations at all.
    found = meet(3, lambda meeting: Rank(meeting.comm, job, StopFlag(), 0.0, None).local_rank)  # type: ignore[arg-type]
    assert found == {0: 0, 1: 1, 2: 2}


def test_a_rank_that_is_lost_while_the_watch_over_a_group_begins_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mpi = pytest.importorskip("mpi4py.MPI")
    monkeypatch.setattr(mpi, "Query_thread", lambda: mpi.THREAD_MULTIPLE)
    never = threading.Event()

    def dup(comm: Comm) -> None:
        if comm.rank == 2:
            raise OSError("no more communicators")
        never.wait()

    monkeypatch.setattr(Comm, "Dup", dup, raising=False)
    job = group_job()
    found = meet(3, lambda meeting: watchers(meeting, job), 20.0)
    never.set()
    assert {str(error) for error in found.values()} == {
        f"rank 2 on {HOST}: OSError: no more communicators"
    }


def test_a_communicator_whose_other_ranks_do_not_call_is_not_waited_for_for_ever() -> None:
    class Late(Request):
        def Test(self) -> bool:  # noqa: N802 - as in MPI
            return False

    class Given:
        rank, size = 1, 2

        def Idup(self) -> Any:  # noqa: N802 - as in MPI
            return self, Late()

    with pytest.raises(RanksLostError, match=r"rank 1 has waited .* all of them have to call it"):
        own_copy(Given(), 0.2)  # type: ignore[arg-type]
