"""Numbers of several seeds in tables: a mean, its 95 % interval, and how many there were."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

CONFIDENCE = 0.95


class Mean(NamedTuple):
    """A mean over seeds.

    Attributes:
        mean: Over all of them.
        half: Half the length of its 95 % interval (Student's t); None for fewer than two.
        seeds: How many there were.
    """

    mean: float
    half: float | None
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Summarise the values of one seed each, of which there is at least one.

        Example:
            >>> Mean.of([1.0, 2.0, 3.0]).mean
            2.0
            >>> round(Mean.of([1.0, 2.0, 3.0]).half, 3)
            2.484
        """
        mean, seeds = statistics.fmean(values), len(values)
        if seeds < 2:
            return cls(mean, None, seeds)
        # SciPy's special functions load in a tenth of the time of its statistics.
        from scipy.special import stdtrit

        quantile = float(stdtrit(seeds - 1, (1 + CONFIDENCE) / 2))
        return cls(mean, quantile * statistics.stdev(values) / math.sqrt(seeds), seeds)

    def show(self, form: Callable[[float], str] | None = None) -> str:
        """Show mean and interval as tables have them.

        Args:
            form: Shows a number; None for two significant digits.

        Example:
            >>> Mean(0.00037, 0.00002, 5).show()
            '3.7e-4 ± 2.0e-5'
            >>> Mean(12.345, 0.567, 3).show("{:.1f}".format)
            '12.3 ± 0.6'
        """
        form = short if form is None else form
        return form(self.mean) if self.half is None else f"{form(self.mean)} ± {form(self.half)}"


def short(value: float) -> str:
    """Show a number of any size with two significant digits.

    Example:
        >>> [short(value) for value in (0, 0.43, 12.5, 442.77, 6174.0, 0.00037, 4.1e13)]
        ['0', '0.43', '12', '443', '6,174', '3.7e-4', '4.1e13']
    """
    if value == 0:
        return "0"
    if 1e-2 <= abs(value) < 1e5:
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}"
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits}e{int(power)}"


def chosen(rows: Iterable[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    """Return the rows that have these values.

    Example:
        >>> chosen([{"a": 1, "b": 2}, {"a": 2, "b": 2}], a=2)
        [{'a': 2, 'b': 2}]
    """
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]
