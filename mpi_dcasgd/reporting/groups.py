"""Runs that differ in nothing but their seed belong together; here they are put together."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.reporting.collect import Point, RunResult
from mpi_dcasgd.rules.algorithms import ALGORITHMS
from mpi_dcasgd.wording import counted

_NOT_SETTINGS = ("name", "seed", "algorithm", "record", "checkpoint")
"""Keys of a job that do not make two runs different experiments."""

_DRIVER_WORDS = {"simulator": "simulated", "replay": "replayed", "ddp": "ddp"}
"""What tells runs apart that are not of an algorithm's usual driver."""


@dataclass(frozen=True, slots=True)
class Stat:
    """A quantity over the runs of a group.

    Attributes:
        mean: Over the runs that have it.
        std: Sample standard deviation (divided by n - 1), or None for a single run.
        n: Runs that have it.
        largest: Of all of them.
    """

    mean: float
    std: float | None
    n: int
    largest: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Stat | None:
        """Mean and deviation of the known ``values``; None if none is known."""
        known = [value for value in values if value is not None and math.isfinite(value)]
        if not known:
            return None
        std = statistics.stdev(known) if len(known) > 1 else None
        return cls(statistics.fmean(known), std, len(known), max(known))


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of one algorithm with one number of workers and the same settings.

    Attributes:
        algorithm, driver, num_workers: Of all of them.
        settings: Those job keys that vary in the report within an algorithm, with their values.
        label: Short and unique in the report.
        runs: By seed.
    """

    algorithm: str
    driver: str
    num_workers: int
    settings: tuple[tuple[str, Any], ...]
    label: str
    runs: tuple[RunResult, ...]

    @property
    def measures(self) -> Measures:
        """The primary metric, its direction and all units."""
        return self.runs[0].measures

    @property
    def validated(self) -> bool:
        """True if a validation split chose the best weights of all runs."""
        return all(run.validated for run in self.runs)

    @property
    def sequential(self) -> bool:
        return self.driver == "sequential"

    @property
    def simulated(self) -> bool:
        return self.driver == "simulator"

    @property
    def manner(self) -> str:
        """Short note on how the runs were made; empty for the usual driver."""
        return _DRIVER_WORDS.get(self.driver, "")

    @property
    def world_size(self) -> int:
        return int(self.runs[0].summary["world_size"])

    @property
    def histogram(self) -> Counter[int]:
        """Gradients by staleness, of all runs together."""
        total: Counter[int] = Counter()
        for run in self.runs:
            total.update(run.histogram)
        return total

    def stat(self, key: str) -> Stat | None:
        """Statistics of one number in the summaries."""
        return Stat.of(run.number(key) for run in self.runs)

    def metric(self, key: str) -> Stat | None:
        """Statistics of a metric in the summaries; None where a run has no finite one.

        The mean of the others would flatter a group of which some runs diverged.
        """
        found = self.stat(key)
        return found if found is not None and found.n == len(self.runs) else None

    def at(self, choose: Callable[[RunResult], Point | None]) -> list[Point]:
        """One evaluation of each run that has it."""
        return [point for run in self.runs if (point := choose(run)) is not None]

    def curve(self, metric: str | None = None) -> list[CurvePoint]:
        """The mean evaluation after each epoch that all runs were evaluated at.

        Args:
            metric: On the test split; None for the primary one.
        """
        name = metric or self.measures.primary
        by_epoch: list[dict[int, Point]] = [{p.epoch: p for p in run.points} for run in self.runs]
        shared = sorted(set.intersection(*(set(points) for points in by_epoch)))
        together = [(epoch, [points[epoch] for points in by_epoch]) for epoch in shared]
        return [CurvePoint.of(epoch, points, name) for epoch, points in together]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One epoch of a group: mean time, and mean, lowest and highest value of its runs.

    Values are not a number where that of any run is not.
    """

    epoch: int
    time_s: float
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, epoch: int, points: Sequence[Point], metric: str) -> CurvePoint:
        values = [point.metrics.get(metric, math.nan) for point in points]
        time_s = statistics.fmean(point.time_s for point in points)
        mean = statistics.fmean(values)
        if math.isnan(mean):
            return cls(epoch, time_s, mean, mean, mean)
        return cls(epoch, time_s, mean, min(values), max(values))


def first_reaching(target: float) -> Callable[[RunResult], Point | None]:
    """The first evaluation whose primary metric is at the target or better.

    The validation split decides where there is one.
    """

    def choose(run: RunResult) -> Point | None:
        measures = run.measures
        return next((p for p in run.points if measures.reached(p.choosing, target)), None)

    return choose


def last_before(time_s: float) -> Callable[[RunResult], Point | None]:
    """The last evaluation of a snapshot that was taken by ``time_s``."""
    return lambda run: next((p for p in reversed(run.points) if p.time_s <= time_s), None)


def at_epoch(epoch: int) -> Callable[[RunResult], Point | None]:
    """The evaluation after ``epoch`` epochs."""
    return lambda run: next((p for p in run.points if p.epoch == epoch), None)


def group_runs(runs: Sequence[RunResult]) -> list[Group]:
    """Put runs together, the sequential ones first, then by workers and algorithm."""
    varying = _varying_keys(runs)
    members: dict[tuple[str, str, int, str], list[RunResult]] = {}
    for run in runs:
        settings = repr([run.job.get(key) for key in varying[run.algorithm]])
        key = (run.algorithm, run.driver, run.num_workers, settings)
        members.setdefault(key, []).append(run)
    several_sizes = len({run.num_workers for run in runs if run.driver != "sequential"}) > 1
    several_drivers = len({run.driver for run in runs if run.driver != "sequential"}) > 1
    groups = []
    for (algorithm, driver, workers, _), together in members.items():
        settings_of = tuple((key, together[0].job.get(key)) for key in varying[algorithm])
        label = [algorithm]
        if several_sizes and driver != "sequential":
            label.append(counted(workers, "worker"))
        label += in_words(settings_of)
        if several_drivers and driver in _DRIVER_WORDS:
            label.append(_DRIVER_WORDS[driver])
        groups.append(
            Group(
                algorithm=algorithm,
                driver=driver,
                num_workers=workers,
                settings=settings_of,
                label=", ".join(label),
                runs=tuple(sorted(together, key=lambda run: run.seed)),
            )
        )
    return sorted(groups, key=_order)


def in_words(settings: Sequence[tuple[str, Any]]) -> list[str]:
    """Settings as a job has them: of the rule by their last word, which says enough.

    Example:
        >>> in_words([("wire.push", "bf16"), ("wire.reply", "bf16"), ("rule.momentum.beta", 0.9)])
        ['wire=bf16', 'beta=0.9']
        >>> in_words([("wire.push", "bf16"), ("wire.reply", "float32")])
        ['wire.push=bf16', 'wire.reply=float32']
    """
    values = dict(settings)
    if "wire.push" in values and values["wire.push"] == values.get("wire.reply"):
        values = {"wire": values.pop("wire.push")} | values
        del values["wire.reply"]
    found = []
    for key, value in values.items():
        last = key.rpartition(".")[2]
        short = key.startswith("rule.") and last != "name"
        found.append(f"{last if short else key}={value}")
    return found


def most_alike(group: Group, others: Sequence[Group]) -> Group | None:
    """The one of ``others`` with the group's settings, or the only one; None if that is unclear."""
    alike = [other for other in others if dict(other.settings) == dict(group.settings)] or others
    return alike[0] if len(alike) == 1 else None


def twins(groups: Sequence[Group]) -> list[tuple[Group, Group]]:
    """Groups of real runs, each with that of the same runs simulated."""
    found = []
    for real in groups:
        if real.driver not in ("mpi", "horovod", "ddp"):
            continue
        kind = (real.algorithm, real.num_workers, real.settings)
        for other in groups:
            if other.simulated and kind == (other.algorithm, other.num_workers, other.settings):
                found.append((real, other))
    return found


def common_settings(runs: Sequence[RunResult]) -> dict[str, Any]:
    """The job keys that are the same in all runs."""
    first = runs[0].job
    return {
        key: value
        for key, value in first.items()
        if _is_setting(key) and all(_same(run.job, first, key) for run in runs)
    }


def differing_settings(groups: Sequence[Group]) -> dict[str, list[tuple[Any, list[str]]]]:
    """For every other job key: its values, each with the labels of the groups that have it."""
    common = common_settings([run for group in groups for run in group.runs])
    found: dict[str, list[tuple[Any, list[str]]]] = {}
    for group in groups:
        for key, value in group.runs[0].job.items():
            if key in common or not _is_setting(key):
                continue
            values = found.setdefault(key, [])
            for known, labels in values:
                if known == value:
                    labels.append(group.label)
                    break
            else:
                values.append((value, [group.label]))
    return found


def _varying_keys(runs: Sequence[RunResult]) -> dict[str, list[str]]:
    """By algorithm, the keys that differ among its runs with as many workers."""
    varying: dict[str, list[str]] = {}
    first: dict[tuple[str, str, int], RunResult] = {}
    for run in runs:
        keys = varying.setdefault(run.algorithm, [])
        other = first.setdefault((run.algorithm, run.driver, run.num_workers), run)
        for key in {**other.job, **run.job}:
            if key not in keys and _is_setting(key) and not _same(run.job, other.job, key):
                keys.append(key)
    return varying


def _is_setting(key: str) -> bool:
    return not any(key == name or key.startswith(f"{name}.") for name in _NOT_SETTINGS)


def _same(one: Mapping[str, Any], other: Mapping[str, Any], key: str) -> bool:
    return key in one and key in other and bool(one[key] == other[key])


def _order(group: Group) -> tuple[Any, ...]:
    names = list(ALGORITHMS)
    rank = names.index(group.algorithm) if group.algorithm in names else len(names)
    settings = [
        (0, value, "") if isinstance(value, (int, float)) else (1, 0, str(value))
        for _, value in group.settings
    ]
    return (not group.sequential, group.num_workers, rank, group.algorithm, settings, group.driver)
