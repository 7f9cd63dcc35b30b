"""A link whose messages share its bandwidth: all that are on their way, about equally.

Each worker has a TCP connection of its own to the server, whose receives are all posted, and TCP
shares a link among the connections that have something to send. So a message does not wait for
those before it; it is slower while others are on their way (processor sharing). The shares are not
quite equal, which matters: messages of equal workers would come in all at once for ever, then go
out all at once, and use one direction of the link at a time. Nor are they equal from the start: a
connection that has been idle begins slowly, and those that are under way keep most of the link.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from typing import Any

from mpi_dcasgd.drivers.simulation.delays import BLOCK, generator

Flow = tuple[int, int, int]
"""A message on its way: worker, life of the worker, part of the message."""

_SHARES = 4  # purpose of generators, beside those of delays.py and cluster.py
_LEAST = 0.05


class SharedLink:
    """One direction of a link, in virtual time.

    The rates of all that is on its way are in the ratio of their weights, so that what each has got
    since the beginning, over its weight, is one number, and the next to end is the one for which
    that number is the least.

    Args:
        bytes_per_s: Of the link; may be infinite.
        each_bytes_per_s: The most that a message gets on average, of its other end's own link.
        share_cv: Standard deviation of the weights, whose mean is 1; they are Gamma distributed.
        key: Of the weights' generators.
        late_share: Factor of the weight of a message that begins while others are on their way.

    Attributes:
        turn: Changes whenever ``next_s`` may have: an event that was planned before is void.
        carried: Bytes of the messages that have ended.
    """

    def __init__(
        self,
        bytes_per_s: float,
        each_bytes_per_s: float,
        share_cv: float = 0.0,
        key: tuple[int, ...] = (),
        late_share: float = 1.0,
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._each_bytes_per_s = each_bytes_per_s
        self._share_cv = share_cv if bytes_per_s < math.inf else 0.0
        self._key = key
        self._late_share = late_share
        self._got = 0.0
        self._at_s = 0.0
        self._serial = 0
        self._flows: list[tuple[float, int, Flow, float, float]] = []
        self._weights = 0.0
        self._drawn: list[float] = []
        self.turn = 0
        self.carried = 0.0

    @property
    def count(self) -> int:
        """Number of messages on their way."""
        return len(self._flows)

    @property
    def rate(self) -> float:
        """Bytes a second that a message of weight 1 gets now, or would get."""
        count = self.count
        if not count:
            return min(self._bytes_per_s, self._each_bytes_per_s)
        return min(self._bytes_per_s, count * self._each_bytes_per_s) / self._weights

    def begin(self, now_s: float, flow: Flow, size: float) -> float:
        """Put a message of ``size`` bytes on its way; its place, for ``left_s``."""
        self._advance(now_s)
        weight = self._weight() * (self._late_share if self._flows else 1.0)
        self._serial += 1
        self.turn += 1
        self._weights += weight
        place = self._got + size / weight
        heapq.heappush(self._flows, (place, self._serial, flow, size, weight))
        return place

    def left_s(self, now_s: float, place: float) -> float:
        """Seconds until a message on its way ends, at the rate that it has now."""
        self._advance(now_s)
        return max(0.0, place - self._got) / self.rate

    def next_s(self) -> tuple[float, int] | None:
        """Return when the next message ends if no other begins, and its worker; None for none."""
        if not self._flows:
            return None
        place, _, (worker, _, _), *_ = self._flows[0]
        left = max(0.0, place - self._got)
        return self._at_s + (left / self.rate if self.rate < math.inf else 0.0), worker

    def end(self, now_s: float) -> Flow:
        """Take off the message that ends now, at the time that ``next_s`` told."""
        self._advance(now_s)
        # Its place exactly, however the time was rounded.
        self._got, _, flow, size, weight = heapq.heappop(self._flows)
        self._weights = self._weights - weight if self._flows else 0.0
        self.turn += 1
        self.carried += size
        return flow

    def _advance(self, now_s: float) -> None:
        if self._flows and self.rate < math.inf:
            self._got += self.rate * (now_s - self._at_s)
        self._at_s = now_s

    def _weight(self) -> float:
        """Weight of the next message, which follows from its number."""
        if not self._share_cv:
            return 1.0
        block, place = divmod(self._serial, BLOCK)
        if not place or not self._drawn:
            spread = self._share_cv**2
            rng = generator(*self._key, _SHARES, block)
            self._drawn = rng.gamma(1 / spread, spread, BLOCK).clip(_LEAST).tolist()
        return self._drawn[place]

    def state_dict(self) -> dict[str, Any]:
        """Return plain values for ``load_state_dict`` to continue from."""
        return {
            "got": self._got,
            "at_s": self._at_s,
            "serial": self._serial,
            "flows": [[*entry[:2], list(entry[2]), *entry[3:]] for entry in self._flows],
            "weights": self._weights,
            "turn": self.turn,
            "carried": self.carried,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self._got, self._at_s = float(saved["got"]), float(saved["at_s"])
        self._serial, self.turn = int(saved["serial"]), int(saved["turn"])
        self._flows[:] = [
            (place, serial, (worker, life, part), size, weight)
            for place, serial, (worker, life, part), size, weight in saved["flows"]
        ]
        self._weights, self._drawn = float(saved["weights"]), []
        self.carried = float(saved["carried"])
