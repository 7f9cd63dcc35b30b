"""The whole state of a server as plain values: what a checkpoint holds and goes on from.

Tensors, numbers, strings, lists and dicts only, so that ``torch.load(..., weights_only=True)``
reads it. A server made from the same job that takes the state over goes on bit for bit.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mpi_dcasgd.errors import ProtocolError
from mpi_dcasgd.server.ledger import TicketLedger
from mpi_dcasgd.server.message import Kind
from mpi_dcasgd.server.server import ParameterServer
from mpi_dcasgd.server.slot import Slot

LAYOUT = 1
"""Changes whenever a state of before could be misread."""


def server_state(server: ParameterServer) -> dict[str, Any]:
    """All that the server will be asked to go on from. Tensors are copies, on the CPU."""
    return {
        **lasting_state(server),
        "slots": [_slot_state(slot) for slot in server.slots],
        "ledger": ledger_state(server.ledger),
        "halted": server._halted,
    }


def lasting_state(server: ParameterServer) -> dict[str, Any]:
    """What outlives the workers: a run goes on from it with new ones, as many as there are.

    All but what each worker was sent. Tickets that were out are still to be computed.
    """
    ledger = server.ledger
    held = server._held.state_dict()
    out = [ticket for tickets in ledger._held for ticket in tickets]
    if server.num_workers > 1:  # one worker goes on in the order in which it holds them
        out.sort()
    return {
        "layout": LAYOUT,
        "size": server.layout.size,
        "num_workers": server.num_workers,
        "weights": _saved(server.weights),
        "version": server.version,
        "samples": server.samples,
        "rule": {
            name: [_saved(vector) for vector in vectors]
            for name, vectors in server.chain.state_dict().items()
        },
        "ledger": {
            "num_tickets": ledger.num_tickets,
            "next": ledger._next,
            "returned": out + list(ledger._returned),
            "closed": ledger._closed,
        },
        "held": {**held, "sum": None if held["sum"] is None else _saved(held["sum"])},
        "tally": {**vars(server.tally), "staleness": dict(server.tally.staleness)},
        "attempts": dict(server._attempts),
        "nonfinite_in_a_row": server._nonfinite_in_a_row,
        "lr_max": server._lr_max,
        "rate": server._rate,
    }


def load_server_state(server: ParameterServer, state: Mapping[str, Any]) -> None:
    """Make the server what it was when ``server_state`` was called.

    Args:
        server: Made from the same job, for as many workers.
        state: What ``server_state`` returned.

    Raises:
        ProtocolError: The state is another layout's, another model's, another number of workers'
            or another rule's.
    """
    _check(server, state, "workers", "tickets")
    _load_common(server, state)
    server.chain.load_state_dict(state["rule"])
    for slot, saved in zip(server.slots, state["slots"], strict=True):
        _load_slot(slot, saved)
    load_ledger(server.ledger, state["ledger"])
    server._halted = state["halted"]


def take_over(server: ParameterServer, state: Mapping[str, Any], *, tickets: bool = True) -> None:
    """Make a server that nobody has pulled from yet go on from ``lasting_state``.

    With one worker the run goes on bit for bit as it would have without the break.

    Args:
        server: Made from the same job, for any number of workers.
        state: What ``lasting_state`` returned.
        tickets: Whether the ledger is to go on, too; else it has been made for what is left.

    Raises:
        ProtocolError: The state is another layout's, another model's or another rule's.
    """
    _check(server, state, *(["tickets"] if tickets else []))
    _load_common(server, state)
    server.chain.take_over(state["rule"])
    if tickets:
        held: list[list[int]] = [[] for _ in server.slots]
        load_ledger(server.ledger, {**state["ledger"], "held": held})


def _load_common(server: ParameterServer, state: Mapping[str, Any]) -> None:
    server.weights.copy_(state["weights"])
    server.version = state["version"]
    server.samples = state["samples"]
    server._held.load_state_dict(state["held"])
    for name, value in state["tally"].items():
        setattr(server.tally, name, Counter(value) if name == "staleness" else value)
    server._attempts = Counter(state["attempts"])
    server._nonfinite_in_a_row = state["nonfinite_in_a_row"]
    server._lr_max = state["lr_max"]
    server._rate = state.get("rate")  # an earlier version did not keep it


def _check(server: ParameterServer, state: Mapping[str, Any], *also: str) -> None:
    rule = server.chain.state_dict()
    facts = {
        "layout": (LAYOUT, state.get("layout")),
        "elements": (server.layout.size, state.get("size")),
        "workers": (server.num_workers, state.get("num_workers")),
        "tickets": (server.ledger.num_tickets, state.get("ledger", {}).get("num_tickets")),
        "state vectors of the rule": (sorted(rule), sorted(state.get("rule", {}))),
    }
    for what in ("layout", "elements", *also, "state vectors of the rule"):
        mine, theirs = facts[what]
        if mine != theirs:
            raise ProtocolError(
                f"the checkpoint's server does not fit this job: {what}: {theirs}, here {mine}"
            )


def _saved(vector: Tensor) -> Tensor:
    return vector.detach().to("cpu", copy=True)


def _slot_state(slot: Slot) -> dict[str, Any]:
    told = slot.status not in ("absent", "parked", "lost")
    return {
        "snapshot": _saved(slot.snapshot),
        "version": slot.version,
        "status": slot.status,
        "clock": slot.clock,
        "tickets": list(slot.message.tickets) if told else [],
    }


def _load_slot(slot: Slot, saved: Mapping[str, Any]) -> None:
    slot.snapshot.copy_(saved["snapshot"])
    slot.version = saved["version"]
    slot.status = saved["status"]
    slot.clock = saved["clock"]
    kind = Kind.STOP if slot.status == "stopped" else Kind.WORK
    slot.message.write_reply(kind, slot.version, saved["tickets"])


def ledger_state(ledger: TicketLedger) -> dict[str, Any]:
    """Where all its tickets are."""
    return {
        "num_tickets": ledger.num_tickets,
        "next": ledger._next,
        "returned": list(ledger._returned),
        "held": [list(tickets) for tickets in ledger._held],
        "closed": ledger._closed,
    }


def load_ledger(ledger: TicketLedger, saved: Mapping[str, Any]) -> None:
    """Make the ledger what it was when ``ledger_state`` was called."""
    ledger._next = saved["next"]
    ledger._returned = deque(saved["returned"])
    ledger._held = [deque(tickets) for tickets in saved["held"]]
    ledger._closed = saved["closed"]
