"""Records of pushes: what of them traces and checkpoints rely on."""

from __future__ import annotations

import pytest

from mpi_dcasgd.server.records import Action, UpdateRecord, fingerprint, record_of

RECORD = UpdateRecord(1, 2, 3, 4, Action.HELD, 5, 0.5, 1.5, 0.0, 6, 2.5)


def test_actions_and_fingerprints_are_part_of_the_layout_of_traces() -> None:
    actions = {"APPLIED": 0, "DROPPED": 1, "HELD": 2, "NONFINITE": 3}
    assert {action.name: int(action) for action in Action} == actions
    assert fingerprint(0.5, 2.0) == 2231


def test_a_record_is_restored_from_its_numbers() -> None:
    found = record_of([float(number) for number in RECORD])
    assert found == RECORD
    assert [type(field) for field in found] == [type(field) for field in RECORD]


@pytest.mark.parametrize(
    ("action", "lr", "stepped"),
    [
        (Action.APPLIED, 0.1, True),
        (Action.APPLIED, 0.0, True),
        (Action.HELD, 0.0, False),
        (Action.DROPPED, 0.0, False),
        (Action.NONFINITE, 0.0, False),
        (Action.NONFINITE, 0.1, True),
    ],
)
def test_a_step_is_made_by_a_push_that_has_a_rate(action: Action, lr: float, stepped: bool) -> None:
    assert RECORD._replace(action=action, lr=lr).stepped is stepped
