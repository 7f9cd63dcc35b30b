"""The largest stable learning rate at any delay, for what only has the mean of many delays."""

from __future__ import annotations

from functools import cache

from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.tools.stable_rates import stable_rates

LAGS = 31
"""Delay up to which a rule is taken through its own arithmetic, which takes time by its cube."""


class LargestRate:
    """Largest stable learning rates of a rule, times the largest curvature.

    Args:
        rule: The rule.
        name: Its name, for messages.

    Example:
        >>> largest = LargestRate(Rule(), "asgd")
        >>> round(largest.at(0), 4), round(largest.at(1), 4), round(largest.between(0.5), 4)
        (2.0, 1.0, 1.3333)
    """

    def __init__(self, rule: Rule, name: str) -> None:
        self._found = cache(lambda staleness: stable_rates(rule, [staleness + 1], name)[0].rate)

    def at(self, staleness: int) -> float:
        """Return the rate at a constant delay, in updates; beyond ``LAGS`` a continuation.

        Raises:
            ConfigError: The rule takes no gradients that are so stale, or its steps are not linear
                near a minimum.
        """
        near = min(staleness, LAGS)
        # Far from no delay at all, what is stable falls as 1 / (2 tau + 1), with momentum or
        # without.
        return float(self._found(near)) * (2 * near + 1) / (2 * staleness + 1)

    def between(self, staleness: float) -> float:
        """Return the rate at a mean delay: its reciprocal is drawn straight from delay to delay.

        Raises:
            ConfigError: As above.
        """
        below = int(staleness)
        share = staleness - below
        if share < 1e-9:
            return self.at(below)
        slowness = (1 - share) / self.at(below) + share / self.at(below + 1)
        return 1 / slowness if slowness > 0 else self.at(below)
