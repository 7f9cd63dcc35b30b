"""Sums over a run's pushes: counts, averages, and sums since the last progress event."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mpi_dcasgd.server.records import Action, UpdateRecord, record_of

_SMOOTHING = 0.02


class Window:
    """Sums since the last progress event."""

    __slots__ = ("count", "loss", "samples", "staleness", "staleness_max", "start_samples", "time")

    def __init__(self, time_s: float, start_samples: int) -> None:
        self.time = time_s
        self.start_samples = start_samples
        self.count = self.samples = self.staleness = self.staleness_max = 0
        self.loss = 0.0


class Tally:
    """Sums of a run's pushes.

    Attributes:
        updates: Updates of the weights so far.
        samples: Samples that were applied so far.
        loss: Smoothed loss; not a number before the first.
        staleness: Smoothed staleness; likewise.
        applied: The last push that was applied.
        histogram: Pushes that entered the weights, by staleness.
        refused: Pushes that did not, by reason.
        window: Sums since the last progress event.
    """

    def __init__(self) -> None:
        self.updates = self.samples = 0
        self.loss = self.staleness = math.nan
        self.applied: UpdateRecord | None = None
        self.histogram: dict[int, int] = {}
        self.refused = {Action.DROPPED: 0, Action.NONFINITE: 0}
        self.window = Window(0.0, 0)

    def add(self, record: UpdateRecord) -> None:
        """Count a push."""
        # Called for every push: locals and few calls on purpose (docs/run-folder.md has the cost).
        _, _, _, staleness, action, samples, loss, _, _, self.samples, _ = record
        if action == 0 or action == 2:  # APPLIED or HELD: it enters the weights
            window = self.window
            window.count += 1
            window.samples += samples
            window.loss += loss * samples
            window.staleness += staleness
            if staleness > window.staleness_max:
                window.staleness_max = staleness
            self.histogram[staleness] = self.histogram.get(staleness, 0) + 1
            if action == 0:
                self.updates += 1
                self.applied = record
            if self.loss == self.loss:
                self.loss += _SMOOTHING * (loss - self.loss)
                self.staleness += _SMOOTHING * (staleness - self.staleness)
            else:
                self.loss, self.staleness = loss, float(staleness)
        else:
            self.refused[action] += 1
            self.updates += record.stepped

    def begin_window(self, time_s: float) -> None:
        """Begin the sums of the next progress event."""
        self.window = Window(time_s, self.samples)

    def progress(self, passed_s: float) -> dict[str, Any]:
        """Return the numbers of a progress event that only pushes decide.

        Args:
            passed_s: Since the last one.
        """
        window, applied = self.window, self.applied
        since = self.samples - window.start_samples
        return {
            "lr": applied.lr if applied else None,
            "train_loss": window.loss / window.samples if window.samples else None,
            "samples_per_s": since / passed_s if passed_s > 0 else None,
            "staleness_mean": window.staleness / window.count if window.count else None,
            "staleness_max": window.staleness_max,
            "grad_norm": applied.grad_norm if applied else None,
            "dropped": self.refused[Action.DROPPED],
            "nonfinite": self.refused[Action.NONFINITE],
        }

    def staleness_summary(self) -> dict[str, Any]:
        """Return what the summary says of staleness."""
        counted = sum(self.histogram.values())
        total = sum(staleness * n for staleness, n in self.histogram.items())
        return {
            "staleness_mean": total / counted if counted else None,
            "staleness_max": max(self.histogram, default=None),
            "staleness_histogram": {str(s): self.histogram[s] for s in sorted(self.histogram)},
        }

    def plain(self) -> dict[str, Any]:
        """Return the counts and averages, in plain values."""
        return {name: getattr(self, name) for name in ("updates", "samples", "loss", "staleness")}

    def sums(self) -> dict[str, Any]:
        """Return everything else of the state, in plain values."""
        window, applied = self.window, self.applied
        return {
            "refused": [self.refused[Action.DROPPED], self.refused[Action.NONFINITE]],
            "window": {name: getattr(window, name) for name in window.__slots__},
            "applied": [float(value) for value in applied] if applied else None,
            "histogram": dict(self.histogram),
        }

    def load(self, plain: Mapping[str, Any], sums: Mapping[str, Any]) -> None:
        """Take over what ``plain`` and ``sums`` returned."""
        for name in ("updates", "samples", "loss", "staleness"):
            setattr(self, name, plain[name])
        self.refused = dict(zip((Action.DROPPED, Action.NONFINITE), sums["refused"], strict=True))
        for name, value in sums["window"].items():
            setattr(self.window, name, value)
        if sums["applied"]:
            self.applied = record_of(sums["applied"])
        self.histogram = dict(sums["histogram"])
