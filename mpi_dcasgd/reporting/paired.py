"""Differences between two rows, paired by seed, with an interval that says how sure they are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

CONFIDENCE = 0.95
METHOD = (
    "Intervals are 95 % confidence intervals of the mean difference, by Student's t on differences"
    " paired by seed; each pair of rows stands by itself, without a correction for their number. A"
    " difference whose interval holds 0 is within noise; with one seed no interval is claimed."
)


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference over the seeds that two rows share.

    Attributes:
        mean: Of the differences.
        low, high: Ends of the interval; None with fewer than two seeds.
        seeds: How many are shared.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int

    @property
    def claimed(self) -> bool:
        """True if there are seeds enough for an interval."""
        return self.low is not None

    @property
    def above_0(self) -> bool:
        """True if the whole interval lies above 0."""
        return self.low is not None and self.low > 0


def paired(theirs: Mapping[int, float], ours: Mapping[int, float]) -> Difference | None:
    """Subtract values seed by seed: theirs minus ours.

    Args:
        theirs: A value for each seed.
        ours: Likewise, of the row that they are held against.

    Returns:
        None if no seed is shared.

    Example:
        >>> paired({1: 3.0, 2: 5.0}, {1: 1.0, 2: 2.0, 3: 9.0}).mean
        2.5
        >>> paired({1: 3.0}, {1: 1.0}).claimed
        False
    """
    differences = [theirs[seed] - ours[seed] for seed in sorted(theirs.keys() & ours.keys())]
    if not differences:
        return None
    mean, seeds = statistics.fmean(differences), len(differences)
    if seeds < 2:
        return Difference(mean, None, None, seeds)
    # SciPy's special functions load in a tenth of the time of its statistics.
    from scipy.special import stdtrit

    quantile = float(stdtrit(seeds - 1, (1 + CONFIDENCE) / 2))
    half = quantile * statistics.stdev(differences) / math.sqrt(seeds)
    return Difference(mean, mean - half, mean + half, seeds)
