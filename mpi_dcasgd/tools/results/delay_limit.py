"""The largest stable rate of SGD whose gradients are as stale as those of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

_ANGLES = 20_000
_AT_ONCE = 500


def largest_rate(
    staleness: Mapping[int, int], weight: Callable[[int], float] = lambda tau: 1.0
) -> float:
    """Return the largest stable learning rate times curvature.

    Each gradient's staleness is taken as drawn anew from those of the run. The mean weights then
    follow ``w <- w - k E[c(tau) w(t - tau)]``, which begins to grow at the smallest k for which
    ``z - 1 + k E[c(tau) z^-tau]`` has a root on the unit circle. With one staleness only it is
    Giladi et al.'s ``2 sin(pi / (2 (2 tau + 1)))``.

    Args:
        staleness: How many gradients had each.
        weight: c, what a step is multiplied by for its staleness.

    Returns:
        Infinite if there is none.

    Example:
        >>> round(largest_rate({39: 1}), 4), round(largest_rate({0: 5}), 4)
        (0.0398, 2.0)
    """
    taus = np.array(sorted(staleness), dtype=np.float64)
    counts = np.array([staleness[int(tau)] for tau in taus], dtype=np.float64)
    shares = counts / counts.sum() * [weight(int(tau)) for tau in taus]
    least = math.inf
    angles = np.linspace(1e-6, math.pi, _ANGLES)
    for start in range(0, _ANGLES - 1, _AT_ONCE):
        angle = angles[start : start + _AT_ONCE + 1]
        mean = np.exp(-1j * np.outer(angle, taus)) @ shares
        with np.errstate(divide="ignore", invalid="ignore"):  # no rate where the mean vanishes
            found = (1 - np.exp(1j * angle)) / mean
        signs, positive = np.sign(found.imag), np.isfinite(found) & (found.real > 0)
        crossed = np.flatnonzero((signs[:-1] != signs[1:]) & positive[:-1] & positive[1:])
        for place in crossed:
            here, there = found[place], found[place + 1]
            share = here.imag / (here.imag - there.imag)
            least = min(least, float(here.real + share * (there.real - here.real)))
    # At the angle pi the ratio is real, and its imaginary part rounding.
    end = float((shares * (-1.0) ** taus).sum())
    return min(least, 2.0 / end) if end > 0 else least
