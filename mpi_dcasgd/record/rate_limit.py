"""The learning rate of a run, held against the largest stable one at the delay that it measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RateLimit:
    """Largest stable learning rate of a run whose largest curvature is known.

    Attributes:
        curvature: Largest curvature of the training loss, above 0.
        source: Where that is from, in words.
        schedule: Learning rate by samples applied, before the factor of a step size.
        largest: Largest stable rate times curvature at a mean staleness; None if it is not known.

    Example:
        >>> limit = RateLimit(2.0, "of the task", lambda samples: 0.8, lambda staleness: 1.0)
        >>> limit.exceeded(samples=100, staleness={1: 40})
        'lr 0.8 is 1.6 times the largest stable one, 0.5, at the mean staleness of 1.00 and the \
largest curvature of 2 (of the task): steps along the sharpest direction grow; lower lr'
        >>> limit.exceeded(samples=100, staleness={})
        ''
    """

    curvature: float
    source: str
    schedule: Callable[[int], float]
    largest: Callable[[float], float | None]

    def exceeded(self, samples: int, staleness: Mapping[int, int]) -> str:
        """Say by how much the rate is too large; empty if it is not.

        Args:
            samples: Applied so far.
            staleness: Gradients that were applied, by their staleness.
        """
        count = staleness and sum(staleness.values())
        if not count:
            return ""
        mean = sum(tau * times for tau, times in staleness.items()) / count
        lr, largest = self.schedule(samples), self.largest(mean)
        if largest is None or lr * self.curvature <= largest:
            return ""
        stable = largest / self.curvature
        return (
            f"lr {lr:.4g} is {lr / stable:.2g} times the largest stable one, {stable:.4g}, at the "
            f"mean staleness of {mean:.2f} and the largest curvature of {self.curvature:.4g} "
            f"({self.source}): steps along the sharpest direction grow; lower lr"
        )


def exceeded_at_the_end(sharpness: Mapping[str, Any]) -> str:
    """Say by how much the rate of a run was too large for the curvature at its weights.

    Args:
        sharpness: The content of sharpness.json.

    Returns:
        Empty if it was not, or if nothing is known.
    """
    for row in sharpness.get("allowed", ()):
        if row.get("formula") or not row["what"].startswith(("mean staleness", "no staleness")):
            continue
        lr, stable = row["used_lr"], row["stable_lr"]
        if (last := sharpness.get("last_lr")) is not None:
            lr = min(lr, last)  # after its schedule, which those weights were trained with
        if stable and lr > stable:
            return (
                f"lr {lr:.4g} at the end is {lr / stable:.2g} times the largest stable one, "
                f"{stable:.4g}, with {row['what']} and the largest curvature of "
                f"{sharpness['curvature']:.4g} that `sharpness` found at the run's weights"
            )
    return ""
