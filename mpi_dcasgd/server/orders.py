"""Orders from the server that leads to those that follow it: everything that changes the weights.

The leader alone decides what becomes of a push; the others have their stretch of the push and wait
for its order. Orders are carried out one after the other, in the order in which they were given, so
all servers go through the same updates. An order is ten little words of 8 bytes::

    kind, worker, samples, staleness, version, number of workers, lr, lr_max, gradient norm, spare
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from mpi_dcasgd.errors import ProtocolError
from mpi_dcasgd.rules.part import Facts

_ORDER = struct.Struct("=6q3dq")
ORDER_BYTES = _ORDER.size


class CrewTag(IntEnum):
    """MPI tag of a message between servers."""

    ORDERS = 11
    ARRIVALS = 12
    OUTLINE = 13
    VECTOR = 14


_NO_FACTS = Facts(0.0, 0.0, 0, 0, 0, 0, 0.0)


class OrderKind(IntEnum):
    """Kind of an order. Zero is none of them."""

    APPLY = 1
    """Make an update with the worker's push."""
    HOLD = 2
    """Keep the worker's push, of so many samples, for a common step."""
    APPLY_HELD = 3
    """Make an update along the mean of what is held."""
    RENEW = 4
    """Write the present weights, or the point ahead of them, into the worker's snapshot."""
    REPLY = 5
    """Send the worker its snapshot, and expect its next push."""
    LAST_REPLY = 6
    """Send the worker its snapshot; no push will come."""
    HAND_IN_WEIGHTS = 7
    """Send the leader the weights, as they are now."""
    HAND_IN_STATE = 8
    """Send the leader weights, the rule's state and what is held."""
    TAKE_OVER = 9
    """Continue from a state that the leader sends."""
    REPORT = 10
    """Say that you are there."""
    END = 11
    """There will be no more orders."""


COMPUTING = (OrderKind.APPLY, OrderKind.HOLD, OrderKind.APPLY_HELD, OrderKind.RENEW)
"""Kinds of orders about vectors, at one version and with facts about a push or a worker."""


class Order(NamedTuple):
    """One order.

    Attributes:
        kind: What to do.
        worker: Whose push, snapshot or reply.
        facts: Facts about the push, for kinds that compute.
        samples: Samples of the push, where it is to be held.
    """

    kind: OrderKind
    worker: int = 0
    facts: Facts = _NO_FACTS
    samples: int = 0

    def pack(self) -> bytes:
        """Return the bytes that travel.

        Example:
            >>> order = Order(OrderKind.REPLY, 3)
            >>> list(orders_in(order.pack() + order.pack())) == [order, order]
            True
        """
        facts = self.facts
        return _ORDER.pack(
            self.kind,
            self.worker,
            self.samples,
            facts.staleness,
            facts.version,
            facts.num_workers,
            facts.lr,
            facts.lr_max,
            facts.grad_norm,
            0,
        )


def orders_in(packed: bytes | memoryview) -> Iterator[Order]:
    """Read orders that stand one after the other.

    Raises:
        ProtocolError: There is something else.
    """
    if len(packed) % ORDER_BYTES:
        raise ProtocolError(f"{len(packed)} bytes of orders; one takes {ORDER_BYTES}")
    for words in _ORDER.iter_unpack(packed):
        kind, worker, samples, staleness, version, num_workers, lr, lr_max, norm, _ = words
        try:
            known = OrderKind(kind)
        except ValueError:
            raise ProtocolError(f"order of unknown kind {kind}") from None
        computes = known in COMPUTING
        about = Facts(lr, lr_max, staleness, version, worker, num_workers, norm)
        yield Order(known, worker, about if computes else _NO_FACTS, samples)
