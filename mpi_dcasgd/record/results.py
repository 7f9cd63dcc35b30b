"""Evaluations of a run: as events, as text, the last and the best of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mpi_dcasgd.drivers.observer import Evaluation
from mpi_dcasgd.learning.measures import Measures


class Results:
    """Evaluations of a run so far.

    Args:
        measures: The metric that they are chosen by, and how metrics are shown.

    Attributes:
        measures: As given.
    """

    def __init__(self, measures: Measures) -> None:
        self.measures = measures
        self._evaluations: list[Evaluation] = []

    def add(self, evaluation: Evaluation) -> None:
        """Take an evaluation, in the order of the copies' versions."""
        self._evaluations.append(evaluation)

    def train_losses(self) -> list[float]:
        """The mean training loss before each evaluation, from the first on."""
        return [evaluation.train_loss for evaluation in self._evaluations]

    @property
    def best(self) -> Evaluation | None:
        """The best evaluation so far, by the validation split if there is one."""
        return self.measures.best(self._evaluations, self.choosing)

    def choosing(self, evaluation: Evaluation) -> float | None:
        """The value that an evaluation is chosen by."""
        return self.measures.choosing(evaluation.choosing)

    def summary(self) -> dict[str, Any]:
        """The metrics of the last evaluation and the primary one of the best; None before one."""
        primary, best = self.measures.primary, self.best
        if not self._evaluations:
            names = dict.fromkeys((primary, "loss"))
            keys = (*named("test", names), "train_loss", f"best_test_{primary}", "best_epoch")
            return dict.fromkeys(keys)
        last = self._evaluations[-1]
        values = named("test", last.test) | named("validation", last.validation)
        values["train_loss"] = last.train_loss
        for split in ("test", "validation") if last.validation is not None else ("test",):
            metrics = getattr(best, split) if best else {}
            values[f"best_{split}_{primary}"] = metrics.get(primary)
        values["best_epoch"] = best.epoch if best else None
        return values

    def text(self, evaluation: Evaluation) -> str:
        """All metrics of an evaluation, the primary one of each split first."""
        primary = self.measures.primary
        splits = (("validation", evaluation.validation or {}), ("test", evaluation.test))
        return ", ".join(
            f"{split} {name} {self.measures.shown(name, value)}"
            for split, metrics in splits
            for name, value in sorted(metrics.items(), key=lambda item: item[0] != primary)
        )

    def not_numbers(self) -> list[str]:
        """The metrics of the last evaluation that are NaN or infinite, by the names of records."""
        if not self._evaluations:
            return []
        last = self._evaluations[-1]
        values = named("test", last.test) | named("validation", last.validation)
        return [name for name, value in values.items() if not math.isfinite(value)]

    def why_none(self, *, finite_weights: bool | None) -> str:
        """Say that the last evaluation is no result, and what to look at; empty if it is one.

        Args:
            finite_weights: Whether the weights that were evaluated are; None if nobody has looked.
        """
        names = self.not_numbers()
        if not names:
            return ""
        if finite_weights is None:
            return no_result(names)
        if not finite_weights:
            look = "nor are the weights that the run ended with; lower lr, or clip gradients"
        elif any(name.endswith("_loss") for name in names):
            look = (
                "while all weights are; look for NaN or infinite values in those samples, and for "
                "logarithms and divisions of zero in the model and the loss; if the training loss, "
                f"{self._evaluations[-1].train_loss:.4g}, has grown, lower lr, or clip gradients"
            )
        else:
            look = "while the losses are; look at what the task's metrics() computes"
        return f"{no_result(names)}, {look}"

    def latest(self) -> str:
        """The primary metric of the last evaluation in a few words; empty before there is one."""
        if not self._evaluations:
            return ""
        primary = self.measures.primary
        value = self._evaluations[-1].test.get(primary)
        return f"test {primary} {self.measures.shown(primary, value, digits=1)}"

    def state(self) -> list[dict[str, Any]]:
        """All of them in plain values, for a checkpoint."""
        return [asdict(evaluation) for evaluation in self._evaluations]

    def load(self, saved: Iterable[Mapping[str, Any]]) -> None:
        """Go on from what ``state`` returned."""
        self._evaluations = [Evaluation.of(values) for values in saved]


def event_of(evaluation: Evaluation) -> dict[str, Any]:
    """The values of an ``evaluation`` event but the time: a key for each metric of each split."""
    values: dict[str, Any] = {}
    for name, value in asdict(evaluation).items():
        if name in ("test", "validation"):
            values |= named(name, value)
        elif name != "time_s":
            values[name] = value
    return values


def no_result(names: Sequence[str]) -> str:
    """Say that a run has ended without a result; empty if it has one.

    Args:
        names: Metrics that are NaN or infinite, as ``not_numbers`` of the summary has them.

    Example:
        >>> no_result(["test_loss"]), no_result([])
        ('no result: test loss is not finite', '')
    """
    shown = ", ".join(name.replace("_", " ", 1) for name in names)
    return f"no result: {shown} {'is' if len(names) == 1 else 'are'} not finite" if names else ""


def named(split: str, metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    """The metrics of a split by the names that records have: ``test_error``."""
    return {f"{split}_{name}": value for name, value in (metrics or {}).items()}
