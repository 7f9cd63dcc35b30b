"""A link whose messages share its bandwidth: what is on its way gets equal parts.

Each worker has a TCP connection of its own to the server, whose receives are all posted, and TCP
shares a link fairly among connections that always have something to send. So a message does not
wait for those before it; it is slower while others are on their way (processor sharing).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from typing import Any

Flow = tuple[int, int, int]
"""A message on its way: worker, life of the worker, part of the message."""


class SharedLink:
    """One direction of a link, in virtual time.

    All that is on its way has the same rate, so the bytes that each has got since the beginning
    are one number, and the next to end is the one with the least still to get.

    Args:
        bytes_per_s: Of the link; may be infinite.
        each_bytes_per_s: The most that one message gets, of its sender's or receiver's own link.

    Attributes:
        turn: Changes whenever ``next_s`` may have: an event that was planned before is void.
        carried: Bytes of the messages that have ended.
    """

    def __init__(self, bytes_per_s: float, each_bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._each_bytes_per_s = each_bytes_per_s
        self._got = 0.0
        self._at_s = 0.0
        self._serial = 0
        self._flows: list[tuple[float, int, Flow, float]] = []
        self.turn = 0
        self.carried = 0.0

    @property
    def rate(self) -> float:
        """Bytes a second that a message gets now, or would get."""
        return min(self._each_bytes_per_s, self._bytes_per_s / max(1, len(self._flows)))

    def begin(self, now_s: float, flow: Flow, size: float) -> float:
        """Put a message of ``size`` bytes on its way; its place, for ``left_s``."""
        self._advance(now_s)
        self._serial += 1
        self.turn += 1
        heapq.heappush(self._flows, (self._got + size, self._serial, flow, size))
        return self._got + size

    def left_s(self, now_s: float, place: float) -> float:
        """Seconds until a message on its way ends, at the rate that it has now."""
        self._advance(now_s)
        return max(0.0, place - self._got) / self.rate

    def next_s(self) -> tuple[float, int] | None:
        """When the next message ends if nothing else begins, and whose; None if there is none."""
        if not self._flows:
            return None
        target, _, (worker, _, _), _ = self._flows[0]
        left = max(0.0, target - self._got)
        return self._at_s + (left / self.rate if self.rate < math.inf else 0.0), worker

    def end(self, now_s: float) -> Flow:
        """Take off the message that ends now, at the time that ``next_s`` told."""
        self._advance(now_s)
        target, _, flow, size = heapq.heappop(self._flows)
        self._got = target  # exactly, however the time was rounded
        self.turn += 1
        self.carried += size
        return flow

    def _advance(self, now_s: float) -> None:
        if self._flows and self.rate < math.inf:
            self._got += self.rate * (now_s - self._at_s)
        self._at_s = now_s

    def state_dict(self) -> dict[str, Any]:
        """Return plain values for ``load_state_dict`` to continue from."""
        return {
            "got": self._got,
            "at_s": self._at_s,
            "serial": self._serial,
            "flows": [
                [target, serial, list(flow), size] for target, serial, flow, size in self._flows
            ],
            "turn": self.turn,
            "carried": self.carried,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self._got, self._at_s = float(saved["got"]), float(saved["at_s"])
        self._serial, self.turn = int(saved["serial"]), int(saved["turn"])
        self._flows[:] = [
            (target, serial, (worker, life, part), size)
            for target, serial, (worker, life, part), size in saved["flows"]
        ]
        self.carried = float(saved["carried"])
