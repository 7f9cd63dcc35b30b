"""How far a figure strays from one repeat to the next."""

from __future__ import annotations

import statistics
from typing import NamedTuple


class Spread(NamedTuple):
    """Of a number over the repeats."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, samples: list[float]) -> Spread:
        return cls(statistics.median(samples), min(samples), max(samples))
