"""Run folders as they are found: finished runs to compare, and the others with the reason."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.job_changes import flatten
from mpi_dcasgd.record.metrics import read_metrics
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.trace import Trace, read_trace
from mpi_dcasgd.server.records import Action


@dataclass(frozen=True, slots=True)
class Point:
    """One evaluation: ``epoch``, ``time_s`` and ``samples`` of its snapshot, error in [0, 1]."""

    epoch: int
    time_s: float
    samples: int
    test_error: float
    train_loss: float | None


@dataclass(frozen=True, slots=True)
class RunResult:
    """A run that completed.

    Attributes:
        path: Its folder.
        job: The resolved job, flat: dotted key to value.
        summary: summary.json.
        environment: environment.json, or empty.
        points: Its evaluations, by epoch.
        workers: The totals of its workers, as in metrics.jsonl.
        staleness: By worker, how many of its gradients entered and the sum of their staleness;
            empty without a trace, and in synchronous runs.
        sizes: Numbers of workers, one for each start of the run, as far as its trace tells.
    """

    path: Path
    job: Mapping[str, Any]
    summary: Mapping[str, Any]
    environment: Mapping[str, Any]
    points: tuple[Point, ...]
    workers: tuple[Mapping[str, Any], ...]
    staleness: Mapping[int, tuple[int, int]]
    sizes: tuple[int, ...] = ()

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


def collect(paths: Sequence[Path]) -> Collection:
    """Read runs.

    Args:
        paths: Run folders, or folders that hold run folders.

    Raises:
        RunFolderError: One of them is neither, or all of them together hold no run.
    """
    runs: list[RunResult] = []
    unfinished: list[UnfinishedRun] = []
    for path in _folders(paths):
        found = _load(RunFolder.open(path))
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
        inside = [path] if (path / "job.yaml").is_file() else _runs_inside(path)
        if not inside:
            raise RunFolderError(
                f"{path}: neither a run folder (it has no job.yaml) nor a folder of run folders"
            )
        for folder in inside:
            found.setdefault(folder.resolve(), folder)
    if not found:
        raise RunFolderError("no run folders were named; give one or more, or a folder of them")
    return list(found.values())


def _runs_inside(path: Path) -> list[Path]:
    return sorted(
        job.parent for pattern in ("*", "*/*") for job in path.glob(f"{pattern}/job.yaml")
    )


def _load(folder: RunFolder) -> RunResult | UnfinishedRun:
    try:
        job = flatten(_mapping(folder.job_yaml, yaml.safe_load))
    except (OSError, ValueError, yaml.YAMLError) as error:
        return UnfinishedRun(folder.path, folder.path.name, "unreadable", f"job.yaml: {error}")
    label = f"{job.get('algorithm', '?')}, seed {job.get('seed', '?')}"
    if not folder.summary_json.exists():
        reason = f"no summary.json: killed, or still running; {_last_seen(folder)}"
        return UnfinishedRun(folder.path, label, "unfinished", reason)
    try:
        summary = _mapping(folder.summary_json, json.loads)
        status = str(summary["status"])
        if status != "completed":
            reason = str(summary.get("reason") or "no reason given")
            return UnfinishedRun(folder.path, label, status, f"{reason}; {_last_seen(folder)}")
        trace = read_trace(folder.trace_bin) if folder.trace_bin.is_file() else None
        run = RunResult(
            path=folder.path,
            job=job,
            summary=summary,
            environment=_environment(folder),
            points=_points(folder),
            workers=tuple(e for e in read_metrics(folder.metrics_jsonl) if e["event"] == "worker"),
            staleness=_staleness(trace) if trace else {},
            sizes=_sizes(trace) if trace else (),
        )
        # What the grouping relies on has to be there before it is relied on.
        _ = (run.algorithm, run.driver, run.num_workers, run.seed, run.histogram)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RunFolderError) as error:
        reason = f"missing {error}" if isinstance(error, KeyError) else str(error)
        return UnfinishedRun(folder.path, label, "unreadable", reason)
    return run


def _mapping(path: Path, parse: Any) -> dict[str, Any]:
    value = parse(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is not a mapping")
    return value


def _environment(folder: RunFolder) -> dict[str, Any]:
    try:
        return _mapping(folder.environment_json, json.loads)
    except (OSError, ValueError):
        return {}


def _sizes(trace: Trace) -> tuple[int, ...]:
    return (int(trace.meta["num_workers"]), *(again.num_workers for again in trace.restarts))


def _staleness(trace: Trace) -> dict[int, tuple[int, int]]:
    entered = (trace.action == Action.APPLIED) | (trace.action == Action.HELD)
    workers, staleness = trace.worker[entered], trace.staleness[entered]
    counts = np.bincount(workers)
    if len(counts) < 2:
        return {}  # one push a step is the whole group's
    sums = np.bincount(workers, weights=staleness)
    return {n: (int(counts[n]), int(sums[n])) for n in range(len(counts)) if counts[n]}


def _points(folder: RunFolder) -> tuple[Point, ...]:
    points = [
        Point(
            epoch=event["epoch"],
            time_s=event["time_s"],
            samples=event["samples"],
            test_error=event["test_error"],
            train_loss=event.get("train_loss"),
        )
        for event in read_metrics(folder.metrics_jsonl)
        if event["event"] == "evaluation" and event.get("test_error") is not None
    ]
    return tuple(sorted(points, key=lambda point: (point.samples, point.time_s)))


def _last_seen(folder: RunFolder) -> str:
    try:
        events = read_metrics(folder.metrics_jsonl)
    except RunFolderError:
        return "nothing was recorded"
    epochs = [event["epoch"] for event in events if event.get("epoch") is not None]
    return f"reached epoch {max(epochs):.3g}" if epochs else "nothing was trained"
