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
SOUND = torch.tensor([0.5, -2.0])


def refuse(
    refusals: Refusals,
    *tickets: int,
    loss: float = math.nan,
    norm: float = math.nan,
    weights: torch.Tensor = SOUND,
    num_params: int = 2,
) -> list[bool]:
    """Refuse a gradient of each ticket; whether it may be retried."""
    pushes = [Push(0, ticket, 8, loss, norm, NONE) for ticket in tickets]
    return [refusals.refuse(0, push, weights, num_params) for push in pushes]


@pytest.mark.parametrize("workers", [1, 3])
def test_those_in_a_row_are_counted_from_the_last_finite_one(workers: int) -> None:
    refusals, most = Refusals(workers), 3 * workers + 6
    for _ in range(2):
        refuse(refusals, *range(most))
        refusals.reset()
    refuse(refusals, *range(10, 10 + most))
    with pytest.raises(NonFiniteError, match=rf"^{most + 1} gradients in a row .*ket 99,"):
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


@pytest.mark.parametrize(
    ("loss", "weights", "told"),
    [
        pytest.param(
            math.nan,
            SOUND,
            r"The loss of that minibatch is nan, while all weights are finite, the largest 2: look "
            r"for NaN or infinite values in its samples, .*; if the weights have grown, lower lr",
            id="one-of-a-sample",
        ),
        pytest.param(
            0.25,
            SOUND,
            r"The loss of that minibatch is 0\.25, and its gradient is not finite, while all "
            r"weights are finite, the largest 2: look for divisions, roots and norms at zero",
            id="a-root-at-zero",
        ),
        pytest.param(
            math.nan,
            torch.tensor([0.0, math.inf]),
            r"applied\. The weights are not finite either: training diverged; lower lr, or clip",
            id="weights-too",
        ),
        pytest.param(
            math.inf,
            torch.tensor([1e30]),
            r"is inf, while all .*, the largest 1e\+30: ",
            id="large",
        ),
    ],
)
def test_what_was_seen_is_told_and_where_to_look(
    loss: float, weights: torch.Tensor, told: str
) -> None:
    refusals = Refusals(1)
    with pytest.raises(NonFiniteError, match=told):
        refuse(refusals, *range(10), loss=loss, weights=weights)


def test_statistics_are_told_from_the_gradient_and_are_no_weights() -> None:
    with pytest.raises(NonFiniteError, match=r"and BatchNorm's statistics are not finite, .* 2:"):
        refuse(
            Refusals(1),
            *range(10),
            loss=0.25,
            norm=1.0,
            weights=torch.tensor([2.0, 9e9]),
            num_params=1,
        )
