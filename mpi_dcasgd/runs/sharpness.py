"""Measure how sharp the loss is at a run's weights, and what learning rate that allows."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.world import pick_device
from mpi_dcasgd.errors import ConfigError, RunFolderError
from mpi_dcasgd.learning.learner import Learner
from mpi_dcasgd.learning.settings import ComputeSettings, Count, Positive
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.arguments import check_arguments, several
from mpi_dcasgd.runs.build import Workshop, start_loaders
from mpi_dcasgd.runs.data_check import replay_changes
from mpi_dcasgd.runs.jobs import JobSource, load_job
from mpi_dcasgd.runs.process import process_as_it_was
from mpi_dcasgd.runs.result import Run
from mpi_dcasgd.tools.largest_rate import LAGS, LargestRate
from mpi_dcasgd.tools.sharpness import Largest, largest_curvature
from mpi_dcasgd.wording import counted

WORKERS = (1, 2, 4, 8, 16, 32)
"""Numbers of workers whose delays a job is held against."""


@dataclass(frozen=True)
class Allowed:
    """Largest stable learning rate at one delay, at the curvature that was found.

    Attributes:
        what: Where the delay is from, ``mean staleness 3.2`` say.
        staleness: The delay, in updates.
        stable_lr: The largest stable rate; infinite where nothing bounds it.
        used_lr: The rate of the run or the job.
        exact: False where it is continued from the rate at a smaller delay.
        formula: True where that of plain SGD stands in for a rule of which no rate is known.
    """

    what: str
    staleness: int
    stable_lr: float
    used_lr: float
    exact: bool = True
    formula: bool = False

    @property
    def share(self) -> float:
        """The rate that is used over the largest stable one; above 1 is unstable."""
        return self.used_lr / self.stable_lr


@dataclass(frozen=True)
class Sharpness:
    """Largest curvature of the training loss, and what it allows.

    Attributes:
        job: The job.
        weights: Whose weights they are.
        found: The largest eigenvalue of the Hessian, and its error.
        samples: Training samples that it was taken over.
        of: Training samples that there are.
        last_lr: The rate at the end of the run, after its schedule; None for a job.
        allowed: One for each delay.
        notes: What to know about them, a line each.
    """

    job: Job
    weights: str
    found: Largest
    samples: int
    of: int
    last_lr: float | None
    allowed: tuple[Allowed, ...]
    notes: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return all of it in plain values, as JSON has them."""

        def row(row: Allowed) -> dict[str, Any]:
            stable = row.stable_lr if math.isfinite(row.stable_lr) else None
            return {**asdict(row), "stable_lr": stable, "share": row.share}

        return {
            "algorithm": self.job.algorithm,
            "weights": self.weights,
            "curvature": self.found.value,
            "error": self.found.error,
            "products": self.found.products,
            "samples": self.samples,
            "train_samples": self.of,
            "last_lr": self.last_lr,
            "allowed": [row(each) for each in self.allowed],
            "notes": list(self.notes),
        }


def sharpness(
    source: JobSource | Run,
    *,
    workers: Sequence[Count] | None = None,
    samples: Count = 1024,
    tolerance: Positive = 1e-3,
    best: bool = False,
    words: str | Sequence[str] = (),
    **overrides: Any,
) -> Sharpness:
    """Measure the largest curvature of the training loss, and what delays it allows at which rate.

    Of a run it is kept in the run's folder (sharpness.json): when the run is resumed, and in
    reports, its learning rate is held against it.

    Args:
        source: A run or its folder, for its final weights and its own delays; or a job, for its
            initial weights.
        workers: Numbers of equal workers whose delays are looked at; None for those that the run
            had, and for a job 1 to 32.
        samples: Training samples whose mean loss is taken, in whole minibatches.
        tolerance: Error wanted, relative to the curvature.
        best: Take the weights of the best evaluation of the run.
        words: Changes of the job, ``key=value``.
        **overrides: Changes of the job by key.

    Raises:
        ConfigError: The job is wrong, changes are given with a run, or the loss has no finite
            second derivatives.
        DataError: The data are missing or not what the job says.
        RunFolderError: The run has no weights, or its folder cannot be written.

    Example:
        >>> found = sharpness("jobs/digits.yaml", workers=[1, 8], samples=256)
        >>> found.allowed[1].stable_lr < found.allowed[0].stable_lr
        True
    """
    check_arguments(sharpness, locals())
    words = several(words)
    folder = _folder_of(source)
    if folder is not None and (words or overrides):
        raise ConfigError("sharpness", ["changes are for a job, not for a run"])
    if folder is None and best:
        raise ConfigError("sharpness", ["best: only a run has best weights"])
    job = load_job(folder.job_yaml if folder else source, words=words, **overrides)  # type: ignore[arg-type]
    weights = None if folder is None else folder.weights(best=best)
    with process_as_it_was(), job.importing(), start_loaders(job) as loaders:
        workshop = Workshop.open(job, pick_device(job.device, 0), loaders=loaders)
        notes = [] if folder is None else replay_changes(folder, workshop)
        flat = workshop.flat_model(workshop.device)
        if weights is not None:
            try:
                flat.model.load_state_dict(weights)
            except RuntimeError as error:
                raise RunFolderError(
                    f"{folder}: its weights do not fit the job's model: {error}"
                ) from error
        # Neither compiled nor in bfloat16: compiled code has no second derivatives.
        learner = Learner(flat, workshop.subject, workshop.plan, ComputeSettings())
        found, seen = largest_curvature(learner, samples, tolerance)
    rows, more = _allowed(job, folder, workers, found.value)
    which = "best" if best else "final"
    result = Sharpness(
        job=job,
        weights="initial weights" if folder is None else f"{which} weights of {folder.path}",
        found=found,
        samples=seen,
        of=len(workshop.subject.train),
        last_lr=None if folder is None else _last_lr(folder),
        allowed=rows,
        notes=(*notes, *more),
    )
    if folder is not None:
        kept = result.plain()
        if workers is not None:
            kept["allowed"] = []  # not at the run's own delays
        folder.write_sharpness(kept)
    return result


def _folder_of(source: JobSource | Run) -> RunFolder | None:
    if isinstance(source, Run):
        return RunFolder.open(source.path)
    if isinstance(source, (str, os.PathLike)) and Path(source).is_dir():
        return RunFolder.open(source)
    return None


def _last_lr(folder: RunFolder) -> float | None:
    rates = [row["lr"] for row in folder.metrics() if row["event"] == "progress" and row.get("lr")]
    return rates[-1] if rates else None


def _allowed(
    job: Job, folder: RunFolder | None, workers: Sequence[int] | None, curvature: float
) -> tuple[tuple[Allowed, ...], list[str]]:
    """A row for each delay, and what to know about them."""
    rows, notes = [], []
    largest = LargestRate(job.rule, job.algorithm)
    if workers is None and folder is not None:
        wanted = _measured(job, folder)
    else:
        wanted = [_of_workers(job, count) for count in workers or WORKERS]
    for what, staleness, lr in wanted:
        rate, exact, note = _rate(largest, job, staleness)
        stable = rate / curvature if curvature > 0 else math.inf
        rows.append(Allowed(what, staleness, stable, lr, exact, bool(note)))
        notes += [note] if note and note not in notes else []
    return tuple(rows), notes


def _of_workers(job: Job, count: int) -> tuple[str, int, float]:
    what = counted(count, "worker")
    return what, count - 1 if job.mode == "asynchronous" else 0, _lr(job, count)


def _measured(job: Job, folder: RunFolder) -> list[tuple[str, int, float]]:
    summary = folder.summary()
    count = int(summary.get("num_workers") or 1)
    if job.mode != "asynchronous":
        return [("no staleness", 0, _lr(job, count))]
    mean, most = summary.get("staleness_mean"), summary.get("staleness_max")
    if mean is None or most is None:
        raise RunFolderError(f"{folder.path}: no staleness is recorded; give --workers")
    return [
        ("without delay", 0, job.lr),
        (f"mean staleness {mean:.3g}", math.ceil(mean - 1e-9), job.lr),
        (f"largest staleness {most}", int(most), job.lr),
    ]


def _lr(job: Job, count: int) -> float:
    """The rate, scaled for a synchronous group if the job says so."""
    group = count * job.sync.accumulate if job.mode == "synchronous" else 1
    return job.lr * group if job.sync.lr_scaling == "linear" else job.lr


def _rate(largest: LargestRate, job: Job, staleness: int) -> tuple[float, bool, str]:
    """The largest stable rate times curvature, whether it is exact, and what to know about it."""
    try:
        return largest.at(staleness), staleness <= LAGS, ""
    except ConfigError:
        plain = 2 * math.sin(math.pi / (2 * (2 * staleness + 1)))
        note = f"by the formula for plain SGD: no largest stable rate is known of {job.algorithm}"
        return plain, True, f"{note}, whose steps are not linear near a minimum"
