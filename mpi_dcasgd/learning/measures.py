"""Metrics of a task: the one that counts, its direction, and the units that people are shown.

Nothing here imports PyTorch, so that runs are looked at and compared without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from mpi_dcasgd.learning.declared import check_declared

if TYPE_CHECKING:
    from mpi_dcasgd.learning.task import Task

T = TypeVar("T")

PERCENT = "%"
"""The unit of a metric that is a fraction of 1 and is shown times 100."""


@dataclass(frozen=True, slots=True)
class Measures:
    """Facts about a task's metrics that are needed to choose by them and to show them.

    Without arguments those of classification, whose records of before the first task of another
    kind do not say it.

    Attributes:
        primary: The metric that says how good weights are.
        higher_is_better: Its direction.
        units: Unit of each metric that has one.
    """

    primary: str = "error"
    higher_is_better: bool = False
    units: Mapping[str, str] = field(default_factory=lambda: {"error": PERCENT})

    @classmethod
    def of(cls, task: Task) -> Measures:
        """Take them from a task, which names them as its attributes.

        Raises:
            ConfigError: They are not of their kinds.
        """
        check_declared(task)
        return cls(task.primary_metric, task.higher_is_better, dict(task.units))

    @classmethod
    def recorded(cls, values: Mapping[str, Any]) -> Measures:
        """Read them from a run's summary, or from its ``start`` event.

        Example:
            >>> Measures.recorded({"primary_metric": "f_gap", "higher_is_better": False})
            Measures(primary='f_gap', higher_is_better=False, units={})
        """
        if not isinstance(primary := values.get("primary_metric"), str):
            return cls()
        units = values.get("units")
        return cls(
            primary,
            bool(values.get("higher_is_better")),
            {str(key): str(unit) for key, unit in units.items()}
            if isinstance(units, Mapping)
            else {},
        )

    def as_recorded(self) -> dict[str, Any]:
        """The fields as ``recorded`` reads them."""
        return {
            "primary_metric": self.primary,
            "higher_is_better": self.higher_is_better,
            "units": dict(self.units),
        }

    def choosing(self, metrics: Mapping[str, float]) -> float | None:
        """The value that weights are chosen by: not a number where their loss is none.

        Example:
            >>> Measures().choosing({"error": 0.9, "loss": float("nan")})
            nan
        """
        if math.isnan(metrics.get("loss", 0.0)):
            return math.nan
        return metrics.get(self.primary)

    def better(self, value: float | None, than: float | None) -> bool:
        """Return whether a value of the primary metric is better than another.

        No value and one that is not a number are worse than any other; nothing is better than its
        equal.

        Example:
            >>> Measures("accuracy", higher_is_better=True).better(0.9, 0.8)
            True
            >>> Measures().better(float("nan"), None)
            False
        """
        if value is None or math.isnan(value):
            return False
        if than is None or math.isnan(than):
            return True
        return value > than if self.higher_is_better else value < than

    def reached(self, value: float, target: float) -> bool:
        """Return whether a value of the primary metric is at the target or better."""
        return value >= target if self.higher_is_better else value <= target

    def best(self, items: Iterable[T], value: Callable[[T], float | None]) -> T | None:
        """The first of ``items`` whose value no other's is better than; None if none has one."""
        found: T | None = None
        for item in items:
            if self.better(value(item), None if found is None else value(found)):
                found = item
        return found

    def shown_on_test(self, value: float | None) -> str:
        """The primary metric of the test split in words; empty if there is no value.

        Example:
            >>> Measures("f_gap", units={}).shown_on_test(2.5e-7)
            'test f_gap 2.5e-07'
        """
        return "" if value is None else f"test {self.primary} {self.shown(self.primary, value)}"

    def scale(self, metric: str) -> float:
        """The factor that a value is shown with."""
        return 100.0 if self.units.get(metric) == PERCENT else 1.0

    def beyond(self, target: float | None) -> list[str]:
        """Return the problem of a target above all values of a metric that is shown in per cent.

        Example:
            >>> Measures().beyond(0.05)
            []
            >>> print(*Measures().beyond(5.0))
            target: got 5; allowed: up to 1, a fraction (error is shown in %); did you mean 0.05?
        """
        if target is None or self.units.get(self.primary) != PERCENT or target <= 1:
            return []
        allowed = f"up to 1, a fraction ({self.primary} is shown in %)"
        meant = f"; did you mean {target / 100:g}?" if target <= 100 else ""
        return [f"target: got {target:g}; allowed: {allowed}{meant}"]

    def title(self, metric: str) -> str:
        """The metric's name and unit at the head of a column: ``error %``.

        Example:
            >>> Measures(units={"time": "s"}).title("time")
            'time s'
        """
        unit = self.units.get(metric, "")
        return f"{metric} {unit}" if unit else metric

    def shown(self, metric: str, value: float | None, digits: int = 2) -> str:
        """A value as people are shown it: ``1.67 %``, or four digits where it is no percentage.

        Args:
            metric: Its name.
            value: None and what is not a number are a dash.
            digits: Decimals of a percentage.

        Example:
            >>> Measures().shown("error", 0.0167), Measures().shown("loss", 0.123456)
            ('1.67 %', '0.1235')
        """
        unit = self.units.get(metric, "")
        if value is None or math.isnan(value):
            text = "-"
        elif unit == PERCENT:
            text = f"{100 * value:.{digits}f}"
        else:
            text = f"{value:.4g}"
        return f"{text} {unit}" if unit else text
