"""Layout of a server's saved state, and the check that a state fits a server.

A state consists of tensors, numbers, strings, lists and dicts only, so that
``torch.load(..., weights_only=True)`` reads it. Each class saves and loads its own part
(``state_dict``, ``load_state_dict``); there are two states of the whole:

- ``ParameterServer.state_dict`` includes the workers. A server made from the same job that loads
  it continues bit for bit. The simulator's checkpoints hold it.
- ``ParameterServer.lasting_state`` outlives the workers, so any number of new ones can resume from
  it. Checkpoints of real runs hold it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from mpi_dcasgd.errors import ProtocolError
from mpi_dcasgd.learning.layout import FlatLayout
from mpi_dcasgd.pages import copy_of

LAYOUT = 1
"""Increased whenever an older state could be misread."""


def saved(vector: Tensor) -> Tensor:
    """Return a copy on the CPU, which further training leaves alone."""
    return copy_of(vector, torch.device("cpu"))


def written_order(layout: FlatLayout) -> dict[str, list[str]]:
    """Return what a state says about the order of its vectors: nothing unless groups changed it."""
    return {"params": list(layout.rearranged)} if layout.rearranged else {}


def check_fits(
    state: Mapping[str, Any],
    *,
    layout: FlatLayout,
    rule: Iterable[str],
    num_workers: int | None = None,
    num_tickets: int | None = None,
) -> None:
    """Refuse a state that belongs to another job.

    Args:
        state: The saved state of a server.
        layout: Layout of the server's vectors.
        rule: Names of the rule's state vectors.
        num_workers: Number of workers, or None if another number is allowed.
        num_tickets: Number of tickets, or None if another number is allowed.

    Raises:
        ProtocolError: One of these facts or the layout of the state differs.
    """
    facts: list[tuple[str, object, object]] = [
        ("layout", LAYOUT, state.get("layout")),
        ("elements", layout.size, state.get("size")),
    ]
    if num_workers is not None:
        facts.append(("workers", num_workers, state.get("num_workers")))
    if num_tickets is not None:
        facts.append(("tickets", num_tickets, state.get("ledger", {}).get("num_tickets")))
    facts.append(("state vectors of the rule", sorted(rule), sorted(state.get("rule", {}))))
    for what, mine, theirs in facts:
        if mine != theirs:
            raise ProtocolError(
                f"the checkpoint's server does not fit this job: {what}: {theirs}, here {mine}"
            )
    _check_order(list(state.get("params", ())), layout)


def _check_order(theirs: list[str], layout: FlatLayout) -> None:
    """Refuse vectors of the same length whose parameters lie in another order."""
    mine = list(layout.rearranged)
    if theirs == mine:
        return
    plain = [field.name for field in layout.in_model_order]
    pairs = zip_longest(theirs or plain, mine or plain)
    place, (its, own) = next(
        ((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1]), (0, (None, None))
    )
    raise ProtocolError(
        "the checkpoint's server does not fit this job: its parameter groups are others: "
        f"parameter {place} of the vector is {its}, here {own}; resume with the groups and the "
        "weight_decay.on that the run was started with"
    )
