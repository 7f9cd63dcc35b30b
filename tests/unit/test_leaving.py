"""The end of a world does not wait for those that hang, nor for those that have died."""

from __future__ import annotations

from typing import Any

import pytest

from mpi_dcasgd.drivers import farewell


class Request:
    def __init__(self, done: bool | Exception) -> None:
        self.done = done

    def Test(self) -> bool:  # noqa: N802 - as in MPI
        if isinstance(self.done, Exception):
            raise self.done
        return self.done


def test_who_takes_no_notice_of_the_end_is_named_and_who_has_died_needs_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mpi = pytest.importorskip("mpi4py.MPI")
    hung: list[str] = []
    monkeypatch.setattr(farewell, "_LEAVE_S", 0.05)
    monkeypatch.setattr(farewell, "_break", hung.append)
    answers = {1: True, 2: False, 3: mpi.Exception(mpi.ERR_OTHER)}

    class Comm:
        def Issend(self, word: Any, dest: int, tag: int) -> Request:  # noqa: N802 - as in MPI
            return Request(answers[dest])

    comm: Any = Comm()
    assert farewell.take_leave([(comm, 1), (comm, 3)])
    assert not farewell.take_leave([(comm, rank) for rank in answers])
    assert hung == ["rank 2"]
