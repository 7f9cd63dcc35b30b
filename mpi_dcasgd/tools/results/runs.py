"""Runs of a study as rows, made as anyone makes them: by the package's public functions."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import yaml

import mpi_dcasgd
from mpi_dcasgd.errors import DcasgdError
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.shipped import shipped
from mpi_dcasgd.tools.results.kept import Kept
from mpi_dcasgd.tools.results.studies import Row

_STUDIES = "jobs/studies"


def compared(
    kept: Kept,
    name: str,
    metrics: Sequence[str],
    *,
    changes: Mapping[str, Any] | None = None,
    only: Sequence[str] | None = None,
    points: int = 0,
    more: Callable[[mpi_dcasgd.Run], Row] = lambda run: {},
    in_process: bool = False,
    show: TextIO | None = None,
) -> list[Row]:
    """Make the runs of a study file of jobs/studies, and return a row for each.

    Args:
        kept: Where the rows and, in a folder ``name``, the runs are.
        name: Of the file, without ``.yaml``.
        metrics: Those of the final weights that a row has, such as ``f_gap``.
        changes: Keys of the file that are others in a short form; those of ``set`` are added.
        only: Names or patterns of runs; None for all.
        points: How many evaluations a row has under ``curve``; see ``row_of``.
        more: Gives further values of a run for its row.
        in_process: Make simulated runs in this process, as `compare` does if it is asked to.
        show: Where `compare` shows a line a run; None for nowhere.

    Raises:
        DcasgdError: A run failed for another reason than that it diverged.
    """
    file = study_file(kept.folder, name, changes)
    found = mpi_dcasgd.compare(
        file, kept.folder / name, only=only, report=False, in_process=in_process, show=show
    )
    failed = [o for o in found.failed if "NonFiniteError" not in o.reason]
    if failed or found.stopped_by is not None:
        told = "; ".join(f"{outcome.run.name}: {outcome.reason}" for outcome in failed)
        raise DcasgdError(f"{name}: {told or 'stopped'}")
    rows = []
    for folder in found.runs:

        def make(path: Path = folder.path) -> Row:
            seconds = seconds_of(RunFolder(path))
            made = mpi_dcasgd.Run(path)
            return {**row_of(made, metrics, points=points), **more(made), "seconds": seconds}

        rows.append(kept.row({"study": name, "run": folder.path.name}, make))
    return rows


def row_of(run: mpi_dcasgd.Run, metrics: Sequence[str], *, points: int = 0) -> Row:
    """Sum up a run.

    Args:
        run: It has ended.
        metrics: Those of the final weights; None in the row where the run has diverged.
        points: Evaluations, evenly spread and the last among them, that go under ``curve``, each a
            list of updates, seconds of the run's own clock, and the first of ``metrics``.
    """
    summary, job = run.summary, run.job
    evaluations = run.metrics("evaluation")
    row: Row = {
        "algorithm": job.algorithm,
        "workers": summary.get("num_workers"),
        "seed": job.seed,
        "lr": job.lr,
        "updates": summary.get("updates"),
        "dropped": summary.get("dropped"),
        "staleness_mean": summary.get("staleness_mean"),
        "staleness_max": summary.get("staleness_max"),
        "time_s": summary.get("wall_s"),
        **{name: finite(summary.get(f"test_{name}")) for name in metrics},
    }
    if points:
        step = max(1, math.ceil(len(evaluations) / points))
        spread = evaluations[::-1][::step][::-1]
        row["curve"] = [
            [e["version"], round(e["time_s"], 2), finite(e[f"test_{metrics[0]}"])] for e in spread
        ]
    return row


def printed(*words: str) -> str:
    """Return what a command of ``mpi-dcasgd`` prints.

    Raises:
        DcasgdError: It failed.
    """
    command = [sys.executable, "-m", "mpi_dcasgd", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DcasgdError(f"mpi-dcasgd {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def unstopped(run: mpi_dcasgd.Run) -> mpi_dcasgd.Run:
    """Return a run that came to its end by itself.

    Raises:
        DcasgdError: A signal has stopped it, which is meant for the study.
    """
    if run.stopped_by is not None:
        raise DcasgdError(f"{run.path}: stopped; the same command goes on with what is missing")
    return run


def seconds_of(folder: RunFolder) -> float:
    """Return the seconds that a run took; of a simulated one the summary has virtual ones only."""
    began, ended = folder.environment_json.stat(), folder.summary_json.stat()
    return round(ended.st_mtime - began.st_mtime, 1)


def finite(value: Any, digits: int = 5) -> float | None:
    """Return a number with some significant digits, or None if it is none, or not finite.

    Example:
        >>> finite(0.123456789), finite(float("inf")), finite("nan")
        (0.12346, None, None)
    """
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def study_file(folder: Path, name: str, changes: Mapping[str, Any] | None) -> Path:
    """Return a study file of jobs/studies, or one with other values that is written into a folder.

    Args:
        folder: For a changed file, which names the job where it is.
        name: Of the file, without ``.yaml``.
        changes: Keys that are others; those of ``set`` are added. None for the file itself.
    """
    original = shipped(f"{_STUDIES}/{name}.yaml")
    if not changes:
        return original
    found = yaml.safe_load(original.read_text())
    found["job"] = str((original.parent / found["job"]).resolve())
    found |= {key: value for key, value in changes.items() if key != "set"}
    found["set"] = {**found.get("set", {}), **changes.get("set", {})}
    file = folder / f"{name}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    # JSON is YAML.
    file.write_text(json.dumps({"name": name, **found}, indent=1))
    return file
