"""Look closer at a run: gaps, compensations and steps, while its pushes are computed again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from mpi_dcasgd.drivers.simulation.close_look import CloseLook, Looked
from mpi_dcasgd.drivers.world import pick_device
from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.learning.loaders.pool import Loaders
from mpi_dcasgd.learning.settings import Count
from mpi_dcasgd.record.closeup import Closeup
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.shown import ShownStream
from mpi_dcasgd.record.trace import TraceRecord
from mpi_dcasgd.runs.arguments import check_arguments
from mpi_dcasgd.runs.build import Workshop, start_loaders
from mpi_dcasgd.runs.data_check import replay_changes
from mpi_dcasgd.runs.process import process_as_it_was
from mpi_dcasgd.runs.recompute import recompute
from mpi_dcasgd.runs.recorded_run import RecordedRun
from mpi_dcasgd.runs.result import Run
from mpi_dcasgd.server.records import UpdateRecord
from mpi_dcasgd.wording import counted

POINTS = 500
"""Pushes that are looked at, about, where nobody says how many."""

_DRIVERS = ("mpi", "simulator", "replay")
_SHOWN_S = 10.0


@dataclass(frozen=True)
class WrittenCloseup:
    """A look at a run, in its folder.

    Attributes:
        path: The file.
        closeup: What is in it.
        seconds: How long it took to compute the run again.
        notes: What to know about it, a line each.
    """

    path: Path
    closeup: Closeup
    seconds: float
    notes: tuple[str, ...] = ()


def closeup(
    run: Run | Path | str,
    *,
    every: Count | None = None,
    code: Path | str | None = None,
    show: TextIO | None = None,
) -> WrittenCloseup:
    """Compute an asynchronous run again, and write down what its pushes did to the weights.

    Of every so many-th push: the gap between the weights and those that the gradient was computed
    at, the norms of the gradient, of its delay compensation and of the step, beside staleness and
    learning rate. The training itself is not touched and need not have ended.

    Args:
        run: A run over MPI, simulated or in a recorded order; or its folder.
        every: From one push that is looked at to the next; None for about 500 in all.
        code: Where the modules of one's own that the job names are looked for first, as in
            ``replay``.
        show: Where progress is shown, such as ``sys.stdout``; None for nowhere.

    Raises:
        ConfigError: ``every`` is below 1, or the job cannot be used.
        RunFolderError: There is no such run, it has no trace, its pushes cannot be computed
            again, or the file cannot be written.

    Example:
        The mean gap of a run::

            print(closeup("runs/digits-asgd").closeup.gap.mean())
    """
    check_arguments(closeup, locals())
    path = run.path if isinstance(run, Run) else Path(run)
    with process_as_it_was():
        recorded = _open(path, code)
        pushes = list(recorded.trace.records())
        if not pushes:
            raise RunFolderError(f"{path}: no push is recorded yet")
        every = every or max(1, len(pushes) // POINTS)
        with recorded.job.importing(), start_loaders(recorded.job) as loaders:
            written = _look(recorded, pushes, every, loaders, show)
    recorded.folder.write_closeup(written.closeup)
    return written


def _open(path: Path, code: Path | str | None) -> RecordedRun:
    folder = RunFolder.open(path)
    if not folder.trace_bin.is_file():
        raise RunFolderError(
            f"{path}: has no {folder.trace_bin.name}; only runs that recorded their pushes "
            "(record.trace: true) can be looked at"
        )
    meta = folder.trace().meta
    if meta.get("driver") in _DRIVERS:
        recorded = RecordedRun.open(path, code=code, drivers=_DRIVERS)
        if recorded.job.mode == "asynchronous":
            return recorded
    raise RunFolderError(
        f"{path}: a run of {meta.get('algorithm')}, none of whose gradients is stale; only "
        "asynchronous runs can be looked at"
    )


def _look(
    run: RecordedRun,
    pushes: Sequence[TraceRecord],
    every: int,
    loaders: Loaders,
    show: TextIO | None,
) -> WrittenCloseup:
    path, trace = run.folder.path, run.folder.trace_bin.read_bytes()
    workshop = Workshop.open(run.job, pick_device(run.job.device, 0), loaders=loaders)
    notes = [*run.code_changes(), *replay_changes(run.folder, workshop)]
    stream = None if show is None else ShownStream(show)
    if stream is not None:
        counts = f"{counted(run.num_workers, 'worker')}, {counted(len(pushes), 'push')}"
        head = f"{path}: {run.job.algorithm}, {counts}"
        print(f"{head}; looking at {_which(every)}", file=stream, flush=True)
    look = CloseLook(every, [push.mark for push in pushes])
    began = time.monotonic()
    server, difference = recompute(run, workshop, pushes, look, _progress(len(pushes), stream))
    seconds = time.monotonic() - began
    if difference is not None:
        raise RunFolderError(
            f"{path}: its pushes cannot be computed again: {difference}"
            + "".join(f"\n{note}" for note in notes)
        )
    if look.first_other is not None:
        notes.append(
            f"from push {look.first_other} on gradients are not the run's bit for bit (another "
            "kind of device, other versions, other data?): the norms are of a run with the same "
            "order of pushes"
        )
    meta = {
        "run": path.name,
        "algorithm": run.job.algorithm,
        "num_workers": run.num_workers,
        "parameters": server.layout.num_trainable,
        "pushes": len(pushes),
        "every": every,
        "identical": look.first_other is None,
        "first_other": look.first_other,
        "trace_bytes": len(trace),
        "trace_sha256": hashlib.sha256(trace).hexdigest(),
    }
    found = Closeup.of(meta, [_row(one, pushes[one.push]) for one in look.found])
    return WrittenCloseup(run.folder.closeup_jsonl, found, seconds, tuple(notes))


def _row(one: Looked, push: TraceRecord) -> dict[str, Any]:
    record = one.record
    computed = record.loss == record.loss or record.grad_norm > 0  # or it was dropped unseen
    return {
        "push": one.push,
        "time_s": push.time_s,
        "epoch": record.epoch,
        "worker": record.worker,
        "version": record.version,
        "staleness": record.staleness,
        "action": record.action.name.lower(),
        "lr": record.lr,
        "grad_norm": record.grad_norm if computed else None,
        "step_norm": one.step_norm,
        "compensation_norm": one.compensation_norm,
        "gap": one.gap,
    }


def _progress(pushes: int, stream: ShownStream | None) -> Callable[[UpdateRecord], None]:
    """Return what shows, now and then, how many pushes have been computed again."""
    done, next_s = 0, time.monotonic() + _SHOWN_S

    def told(record: UpdateRecord) -> None:
        nonlocal done, next_s
        done += 1
        if stream is not None and time.monotonic() >= next_s:
            next_s = time.monotonic() + _SHOWN_S
            print(f"{done} of {counted(pushes, 'push')}", file=stream, flush=True)

    return told


def _which(every: int) -> str:
    if every == 1:
        return "all of them"
    end = "th" if every // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(every % 10, "th")
    return f"every {every}{end}"
