"""Medians and extremes of repeated measurements, and of ratios taken within one repeat."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """Median and extremes of a number over the repeats."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Summarise samples, of which there is at least one.

        Example:
            >>> Spread.of([3.0, 1.0, 2.0])
            Spread(median=2.0, least=1.0, most=3.0)
        """
        return cls(statistics.median(samples), min(samples), max(samples))

    def entry(self, name: str) -> dict[str, float]:
        """Return the numbers under the names that all benchmarks' JSON has.

        Example:
            >>> Spread.of([3.0, 1.0, 2.0]).entry("over_raw")
            {'over_raw': 2.0, 'over_raw_min': 1.0, 'over_raw_max': 3.0}
        """
        return {name: self.median, f"{name}_min": self.least, f"{name}_max": self.most}

    def __str__(self) -> str:
        """Show a ratio as tables have it."""
        return f"{self.median:.2f} ({self.least:.2f} to {self.most:.2f})"


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Return what one measurement is over another, repeat by repeat.

    Example:
        >>> ratios([2.0, 6.0], [4.0, 4.0])
        Spread(median=1.0, least=0.5, most=1.5)
    """
    return Spread.of([a / b for a, b in zip(over, under, strict=True)])


def rate(samples: Sequence[float]) -> str:
    """Show the median of rates as tables have it.

    Example:
        >>> rate([1234.5, 9.0, 2000.0])
        '1,234'
    """
    median = statistics.median(samples)
    return f"{median:,.0f}" if median >= 1000 else f"{median:.3g}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], words: int = 0) -> str:
    """Return a Markdown table of numbers.

    Args:
        heads: Names of the columns.
        rows: Their cells.
        words: Number of columns, from the left, that hold words.
    """
    marks = ["---"] * words + ["---:"] * (len(heads) - words)
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, *rows)]
    return "\n".join([lines[0], f"|{'|'.join(marks)}|", *lines[1:]])
