from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpi_dcasgd.errors import ProtocolError
from mpi_dcasgd.server.ledger import TicketLedger

acts = st.lists(
    st.tuples(
        st.sampled_from(["grant", "complete", "hand_back", "drop", "reclaim"]), st.integers(0, 2)
    )
)


@given(st.integers(0, 12), acts)
def test_no_ticket_is_ever_in_two_places_or_in_none(
    count: int, script: list[tuple[str, int]]
) -> None:
    ledger = TicketLedger(count, 3)
    completed: list[int] = []
    for act, worker in script:
        held = ledger.held(worker)
        if act == "grant":
            ledger.grant(worker)
        elif act == "reclaim":
            assert ledger.reclaim(worker) == held
        elif held and act == "complete":
            ledger.complete(worker, held[0])
            completed.append(held[0])
        elif held and act == "drop":
            ledger.drop(worker, held[-1])
        elif held:
            ledger.hand_back(worker, held[-1])
        out = [t for w in range(3) for t in ledger.held(w)]
        assert len(set(out) | set(completed)) == len(out) + len(completed)
        assert len(out) + len(completed) + ledger.available == count
    # Whatever happened, one worker can finish the rest, and every ticket is done exactly once.
    for worker in range(3):
        ledger.reclaim(worker)
    while (ticket := ledger.grant(0)) is not None:
        ledger.complete(0, ticket)
        completed.append(ticket)
    assert ledger.done
    assert sorted(completed) == list(range(count))


def test_tickets_handed_back_go_out_before_new_ones() -> None:
    ledger = TicketLedger(4, 2)
    assert [ledger.grant(0), ledger.grant(0), ledger.grant(1)] == [0, 1, 2]
    ledger.reclaim(0)
    assert [ledger.grant(1) for _ in range(4)] == [0, 1, 3, None]


def test_completing_a_ticket_that_one_does_not_hold_is_an_error() -> None:
    ledger = TicketLedger(4, 2)
    ledger.grant(0)
    with pytest.raises(ProtocolError, match="worker 1 delivered ticket 0, but holds none"):
        ledger.complete(1, 0)


def test_a_dropped_ticket_goes_to_others_and_back_only_where_nothing_else_is_left() -> None:
    ledger = TicketLedger(4, 2)
    assert [ledger.grant(0), ledger.grant(1)] == [0, 1]
    ledger.drop(1, 1)
    assert ledger.grant(1) == 2, "a new one"
    resumed = TicketLedger(4, 2)
    resumed.load_state_dict(ledger.state_dict())
    assert resumed.grant(1) == 3, "still for others"
    assert ledger.grant(0) == 1, "before any new one"
    ledger.drop(1, 2)
    assert [ledger.grant(1), ledger.grant(1), ledger.grant(1)] == [3, 2, None]


def test_new_workers_know_nothing_of_what_others_dropped() -> None:
    ledger, resumed = TicketLedger(2, 2), TicketLedger(2, 1)
    ledger.grant(0)
    ledger.drop(0, 0)
    resumed.take_over(ledger.lasting_state())
    assert [resumed.grant(0), resumed.grant(0)] == [0, 1]


def test_a_state_shares_nothing_with_the_ledger_that_wrote_or_read_it() -> None:
    ledger, other = TicketLedger(4, 2), TicketLedger(4, 2)
    for worker in (0, 1, 0):
        ledger.grant(worker)
    ledger.drop(0, 0)
    state = ledger.state_dict()
    before = copy.deepcopy(state)
    other.load_state_dict(state)
    for each in (ledger, other):
        each.grant(1)
        each.drop(1, 1)
        each.complete(0, 2)
    assert state == before
    assert other.state_dict() == ledger.state_dict() != before
