"""Gradients that are not finite: how many in a row end a run, or give up a ticket."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from mpi_dcasgd.errors import NonFiniteError
from mpi_dcasgd.server.push import Push
from mpi_dcasgd.server.refusals import Refusals

NONE = torch.empty(0)


def refuse(refusals: Refusals, *tickets: int) -> list[bool]:
    """Refuse a gradient of each ticket; whether it may be retried."""
    return [refusals.refuse(0, Push(0, ticket, 8, math.nan, math.nan, NONE)) for ticket in tickets]


@pytest.mark.parametrize("workers", [1, 3])
def test_those_in_a_row_are_counted_from_the_last_finite_one(workers: int) -> None:
    refusals, most = Refusals(workers), 3 * workers + 6
    for _ in range(2):
        refuse(refusals, *range(most))
        refusals.reset()
    refuse(refusals, *range(10, 10 + most))
    with pytest.raises(NonFiniteError, match=rf"diverged: {most + 1} gradients in a row .*et 99,"):
        refuse(refusals, 99)


def test_a_ticket_is_given_up_at_its_third() -> None:
    assert refuse(Refusals(1), 5, 6, 5, 5, 6) == [True, True, True, False, True]


def test_the_counts_survive_their_state_which_is_a_copy() -> None:
    one, other = Refusals(1), Refusals(1)
    refuse(one, 5, 5, *range(10, 17))
    state = one.state_dict()
    before = copy.deepcopy(state)
    other.load_state_dict(state)
    one.reset()
    assert refuse(one, 5) == [False]
    assert state == before
    assert type(state["attempts"]) is dict, "a checkpoint consists of plain values"
    other_row = Refusals(1)
    other_row.load_state_dict(before)
    with pytest.raises(NonFiniteError, match="10 gradients in a row"):
        refuse(other_row, 5)
    assert other.state_dict() == before
