"""Run folders as they are found: finished runs to compare, and the others with the reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.record.job_changes import flatten
from mpi_dcasgd.record.run_files import JOB_YAML
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.steps import FIELDS
from mpi_dcasgd.record.study_folder import find_runs
from mpi_dcasgd.record.trace import Trace
from mpi_dcasgd.reporting.closer import Closer, look_closer
from mpi_dcasgd.reporting.sound import check_events, check_summary
from mpi_dcasgd.server.records import Action


@dataclass(frozen=True, slots=True)
class Point:
    """One evaluation.

    Attributes:
        epoch, time_s, samples: Of the snapshot.
        value: The primary metric on the test split; what is not finite is not a number.
        choosing: The same on the split that chooses: validation if there is one, else test.
        metrics: All metrics on the test split.
        train_loss: Mean since the evaluation before; None if it is not finite.
    """

    epoch: int
    time_s: float
    samples: int
    value: float
    choosing: float
    metrics: Mapping[str, float]
    train_loss: float | None


@dataclass(frozen=True, slots=True)
class RunResult:
    """A run that completed.

    Attributes:
        path: Its folder.
        job: The resolved job, flat: dotted key to value.
        summary: Its summary.
        environment: Its software and hardware, or empty.
        points: Its evaluations, by epoch.
        workers: The totals of its workers, as they were recorded.
        staleness: By worker, how many of its gradients entered and the sum of their staleness;
            empty without a trace, and in synchronous runs.
        sizes: Numbers of workers, one for each start of the run, as far as its trace tells.
        idle: Keys and sections of the job that had no effect.
        restarts: What its launcher started it again for, oldest first.
        closer: Its staleness over time, and what ``closeup`` measured.
        server_busy: Share of its time that the server applied pushes; None if that is not known.
    """

    path: Path
    job: Mapping[str, Any]
    summary: Mapping[str, Any]
    environment: Mapping[str, Any]
    points: tuple[Point, ...]
    workers: tuple[Mapping[str, Any], ...]
    staleness: Mapping[int, tuple[int, int]]
    sizes: tuple[int, ...] = ()
    idle: frozenset[str] = frozenset()
    restarts: tuple[str, ...] = ()
    closer: Closer = Closer()
    server_busy: float | None = None

    @property
    def measures(self) -> Measures:
        """The primary metric, its direction and all units."""
        return Measures.recorded(self.summary)

    @property
    def task(self) -> str:
        """The name of the task; before there were several it was classification."""
        return str(self.job.get("task.name") or self.job.get("task") or "classification")

    @property
    def validated(self) -> bool:
        """True if a validation split chose the best weights."""
        return f"best_validation_{self.measures.primary}" in self.summary

    @property
    def algorithm(self) -> str:
        return str(self.summary["algorithm"])

    @property
    def driver(self) -> str:
        return str(self.summary["driver"])

    @property
    def num_workers(self) -> int:
        return int(self.summary["num_workers"])

    @property
    def seed(self) -> int:
        return int(self.summary["seed"])

    @property
    def histogram(self) -> dict[int, int]:
        """Gradients by staleness."""
        return {int(key): int(n) for key, n in self.summary["staleness_histogram"].items()}

    def uses(self, key: str) -> bool:
        """Return whether a setting of the job has a value, and an effect."""
        sections = key.split(".")
        names = {".".join(sections[: n + 1]) for n in range(len(sections))}
        return self.job.get(key) not in (None, [], {}, ()) and not names & self.idle

    def number(self, key: str) -> float | None:
        """A number of the summary."""
        value = self.summary.get(key)
        return float(value) if isinstance(value, (int, float)) else None


@dataclass(frozen=True, slots=True)
class UnfinishedRun:
    """A run that cannot be compared, and why: ``status`` is a word, ``reason`` a sentence."""

    path: Path
    label: str
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class Collection:
    """The runs of a report."""

    runs: tuple[RunResult, ...]
    unfinished: tuple[UnfinishedRun, ...]


ReadStored = Callable[[Mapping[str, Any]], Mapping[str, Any]]


FindIdle = Callable[[Mapping[str, Any]], frozenset[str]]


def _none_idle(stored: Mapping[str, Any]) -> frozenset[str]:
    return frozenset()


def collect(
    paths: Sequence[Path], read_stored: ReadStored = dict, find_idle: FindIdle = _none_idle
) -> Collection:
    """Read runs.

    Args:
        paths: Run folders, or folders that hold run folders.
        read_stored: Brings a stored job to the keys of today, so that runs of several versions
            can be compared.
        find_idle: Tells which settings of a stored job have no effect.

    Raises:
        RunFolderError: One of them is neither, or all of them together hold no run.
    """
    runs: list[RunResult] = []
    unfinished: list[UnfinishedRun] = []
    for path in _folders(paths):
        found = _load(RunFolder.open(path), read_stored, find_idle)
        if isinstance(found, RunResult):
            runs.append(found)
        else:
            unfinished.append(found)
    return Collection(tuple(runs), tuple(unfinished))


def _folders(paths: Iterable[Path]) -> list[Path]:
    found: dict[Path, Path] = {}  # by what it resolves to: a run named twice counts once
    for path in paths:
        if not path.is_dir():
            raise RunFolderError(f"{path}: no such folder")
        inside = find_runs(path)
        if not inside:
            raise RunFolderError(
                f"{path}: neither a run folder (it has no {JOB_YAML}) nor a folder of run folders"
            )
        for folder in inside:
            found.setdefault(folder.path.resolve(), folder.path)
    if not found:
        raise RunFolderError("no run folders were named; give one or more, or a folder of them")
    return list(found.values())


def _load(
    folder: RunFolder, read_stored: ReadStored, find_idle: FindIdle
) -> RunResult | UnfinishedRun:
    try:
        stored = folder.job()
        job = flatten(read_stored(stored))
    except RunFolderError as error:
        return UnfinishedRun(folder.path, folder.path.name, "unreadable", str(error))
    label = f"{job.get('algorithm', '?')}, seed {job.get('seed', '?')}"
    if not folder.summary_json.exists():
        reason = f"no {folder.summary_json.name}: killed, or still running; {_last_seen(folder)}"
        return UnfinishedRun(folder.path, label, "unfinished", reason)
    try:
        summary = folder.summary()
        status = str(summary["status"])
        if status != "completed":
            reason = str(summary.get("reason") or "no reason given")
            return UnfinishedRun(folder.path, label, status, f"{reason}; {_last_seen(folder)}")
        trace = folder.trace() if folder.trace_bin.is_file() else None
        events = folder.metrics()
        run = RunResult(
            path=folder.path,
            job=job,
            summary=summary,
            environment=folder.environment(),
            points=_points(events, Measures.recorded(summary)),
            workers=tuple(e for e in events if e["event"] == "worker"),
            staleness=_staleness(trace) if trace else {},
            sizes=_sizes(trace) if trace else (),
            idle=find_idle(stored),
            restarts=tuple(restart.cause for restart in folder.restarts()),
            closer=look_closer(folder, trace, events),
            server_busy=_server_busy(folder, trace) if trace else None,
        )
        # What the grouping relies on has to be there before it is relied on.
        _ = (run.algorithm, run.driver, run.num_workers, run.seed, run.histogram)
        check_summary(summary)
        check_events(events)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RunFolderError) as error:
        reason = f"missing {error}" if isinstance(error, KeyError) else str(error)
        return UnfinishedRun(folder.path, label, "unreadable", reason)
    return run


def _sizes(trace: Trace) -> tuple[int, ...]:
    return (int(trace.meta["num_workers"]), *(again.num_workers for again in trace.restarts))


def _server_busy(folder: RunFolder, trace: Trace) -> float | None:
    steps = folder.steps(len(trace))
    if steps is None or not len(trace) or not np.isfinite(steps).all() or not trace.time_us[-1]:
        return None
    return float(steps[:, FIELDS.index("apply_s")].sum(dtype=np.float64) / trace.time_us[-1] * 1e6)


def _staleness(trace: Trace) -> dict[int, tuple[int, int]]:
    entered = (trace.action == Action.APPLIED) | (trace.action == Action.HELD)
    workers, staleness = trace.worker[entered], trace.staleness[entered]
    counts = np.bincount(workers)
    if len(counts) < 2:
        return {}  # one push a step is the whole group's
    sums = np.bincount(workers, weights=staleness)
    return {n: (int(counts[n]), int(sums[n])) for n in range(len(counts)) if counts[n]}


def _points(events: Iterable[Mapping[str, Any]], measures: Measures) -> tuple[Point, ...]:
    key = f"test_{measures.primary}"
    points = [
        Point(
            epoch=event["epoch"],
            time_s=event["time_s"],
            samples=event["samples"],
            value=_number(event[key]),
            choosing=_number(event.get(f"validation_{measures.primary}", event[key])),
            metrics={
                name.removeprefix("test_"): _number(value)
                for name, value in event.items()
                if name.startswith("test_")
            },
            train_loss=event.get("train_loss"),
        )
        for event in events
        if event["event"] == "evaluation" and key in event
    ]
    return tuple(sorted(points, key=lambda point: (point.samples, point.time_s)))


def _number(value: Any) -> float:
    """A value as it was before it was written down: JSON has no word for what is not finite."""
    return math.nan if value is None else float(value)


def _last_seen(folder: RunFolder) -> str:
    progress = folder.progress()
    if not progress.begun:
        return "nothing was recorded"
    return (
        "nothing was trained" if progress.epoch is None else f"reached epoch {progress.epoch:.3g}"
    )
