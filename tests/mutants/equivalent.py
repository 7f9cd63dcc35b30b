"""Faults that change nothing that could be noticed, and why."""

from __future__ import annotations

from tests.mutants.mutations import Mutation

_UNREAD = "nobody reads the version before the first pull, which sets it"

EQUIVALENT: dict[tuple[str, str], dict[str, str]] = {
    ("server.ledger", "held.clear()"): {
        "held.clear()  ->  (nothing)": "nobody holds a ticket of a ledger that takes over",
    },
    ("server.ledger", "self._dropped_by.clear()"): {
        "self._dropped_by.clear()  ->  (nothing)": "likewise: it is new, and nothing was dropped",
    },
    (
        "server.message",
        "words = (HEADER_BYTES + (size * dtype.itemsize if behind else 0)) // 4",
    ): {"0  ->  1": "bytes are rounded down to words"},
    ("server.model_state", "self.renew(snapshot, self.facts(worker, 0, 0.0))"): {
        "self.facts(worker, 0, 0.0)  ->  self.facts(worker, 0.0, 0)": "0 is 0.0",
    },
    ("server.slot", "version: int = -1"): {"-1  ->  1": _UNREAD, "1  ->  2": _UNREAD},
}
"""Module and line to faults that nobody can notice (``Mutation.name``), with the reason."""


def reason_for(module: str, fault: Mutation) -> str | None:
    """Why nobody could notice the fault; None if somebody should."""
    return EQUIVALENT.get((module, fault.text), {}).get(fault.name)
