"""An asynchronous run computed again from its trace, in one process."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mpi_dcasgd.config.load import load_job
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.conductor import Conductor, weights_sha256
from mpi_dcasgd.drivers.simulation.recorded_order import (
    Difference,
    RecordedLedger,
    replay,
    replay_order,
)
from mpi_dcasgd.drivers.world import pick_device
from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.environment import RankPlace, git_state
from mpi_dcasgd.record.logs import rank_logger
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.trace import Trace, TraceRecord
from mpi_dcasgd.rules.algorithms import ALGORITHMS
from mpi_dcasgd.runs.build import Workshop
from mpi_dcasgd.runs.recording import Recording
from mpi_dcasgd.server.records import UpdateRecord
from mpi_dcasgd.server.server import ParameterServer


class _Stretch(NamedTuple):
    """Pushes ``begin`` to ``end``, by so many workers."""

    begin: int
    end: int
    num_workers: int


@dataclass(frozen=True)
class _Recorded:
    """What a run folder says about the run to be replayed."""

    folder: RunFolder
    job: Job
    trace: Trace
    num_workers: int
    weights_sha256: str

    @property
    def stretches(self) -> list[_Stretch]:
        """The pushes from one start of the run to the next, by the workers of then."""
        starts = [(0, self.num_workers), *self.trace.restarts]
        ends = [begin for begin, _ in starts[1:]] + [len(self.trace)]
        return [
            _Stretch(begin, end, workers)
            for (begin, workers), end in zip(starts, ends, strict=True)
        ]

    @classmethod
    def open(cls, path: Path, overrides: Sequence[str]) -> _Recorded:
        folder = RunFolder.open(path)
        trace = folder.trace()
        # A compiled update and one in blocks round alike only nearly.
        kernel = f"fuse={trace.meta.get('kernel', 'blocks')}"
        job = load_job(folder.job_yaml, [kernel, *overrides])
        if trace.meta.get("driver") != "mpi":
            raise RunFolderError(
                f"{path}: a {trace.meta.get('driver')} run; only asynchronous runs over MPI have "
                "an order of pushes to replay (the others repeat themselves when run again)"
            )
        sha = str(folder.summary().get("weights_sha256") or "")
        return cls(folder, job, trace, int(trace.meta["num_workers"]), sha)


def replay_exactly(path: Path) -> int:
    """Recompute a run and say whether every gradient and the final weights are identical.

    Returns:
        0 if they are, 1 if not.

    Raises:
        RunFolderError: There is no such run, or its trace was changed.
    """
    run = _Recorded.open(path, ())
    pushes = list(run.trace.records())
    workshop = Workshop.open(run.job, _device(run.job))
    print(f"{path}: {run.job.algorithm}, {run.num_workers} workers, {len(pushes)} pushes")
    started = time.monotonic()
    server, difference = _replay(run, workshop, pushes)
    spent = time.monotonic() - started
    if difference is not None:
        at = pushes[difference.number]
        print(
            f"DIFFERENT from {difference} (worker {at.worker}, ticket {at.ticket}, version "
            f"{at.version})"
        )
        return 1
    sha = weights_sha256(server.weights, server.layout)
    if run.trace.truncated and run.folder.is_finished():
        print(
            f"CUT: every gradient is the same as far as the trace goes, {len(pushes)} pushes, but "
            f"the run came to its end and its trace does not: {run.folder.trace_bin} is not whole; "
            "copy it again"
        )
        return 1
    if run.trace.truncated:
        print(
            f"identical as far as the trace goes: {len(pushes)} pushes, {server.version} updates "
            f"in {spent:.1f} s; the run was killed, so there are no final weights to compare"
        )
        return 0
    if sha != run.weights_sha256:
        print(f"DIFFERENT: every gradient is the same, but the final weights are {sha[:16]} ...")
        print(f"           where the run's are {run.weights_sha256[:16]} ...")
        return 1
    print(
        f"identical: {len(pushes)} pushes, {server.version} updates in {spent:.1f} s, final "
        f"weights {sha[:16]} ..."
    )
    return 0


def _replay(
    run: _Recorded, workshop: Workshop, pushes: Sequence[TraceRecord]
) -> tuple[ParameterServer, Difference | None]:
    """The server after the last push, or after the first that differs."""
    task = workshop.task(workshop.flat_model(workshop.device))
    state: dict[str, Any] | None = None
    for stretch in run.stretches:
        mine = pushes[stretch.begin : stretch.end]
        finished = run.trace.status == "completed" and stretch.end == len(pushes)
        ledger = RecordedLedger(mine, stretch.num_workers, finished=finished)
        server = workshop.server(stretch.num_workers, torch.device("cpu"), ledger)
        if state is not None:
            server.take_over(state, tickets=False)
        difference = replay(server, task, mine, [push.mark for push in mine])
        if difference is not None:
            number = stretch.begin + difference.number
            return server, difference._replace(number=number)
        state = server.lasting_state()
    return server, None


def replay_under(
    path: Path, overrides: Sequence[str], run_dir: Path | None, argv: Sequence[str]
) -> int:
    """Run a job's changes on a recorded order of pushes, and write a run folder of it.

    Who pushed when is the recorded run's; what the pushes do is the changed job's. Times in the
    new folder are those of the recorded run.

    Raises:
        ConfigError: The changes are not for a job of the same data, order and workers.
    """
    run = _Recorded.open(path, overrides)
    if ALGORITHMS[run.job.algorithm].mode != "asynchronous":
        raise RunFolderError(
            f"algorithm={run.job.algorithm}: has no pushes to put in a recorded order; choose an "
            "asynchronous algorithm"
        )
    records = list(run.trace.records())
    clock = _RecordedClock(records)
    workshop = Workshop.open(run.job, _device(run.job))
    num_workers = max(stretch.num_workers for stretch in run.stretches)
    server = workshop.server(num_workers, torch.device("cpu"))
    task = workshop.task(workshop.flat_model(workshop.device))
    recording = Recording(run.job, run_dir, argv, git_state())
    logger = rank_logger(recording.folder, 0)
    place = RankPlace(
        rank=0, role="trainer", host=socket.gethostname(), device=str(workshop.device)
    )
    observer = recording.recorder("replay", num_workers, [place], server, logger)
    conductor = Conductor(
        server, observer, workshop.evaluator(), run.job.evaluate_every, clock=clock
    )
    conductor.begin(0.0)
    observer.message(f"in the order of {path}")

    def told(record: UpdateRecord) -> None:
        clock.tick()
        conductor.after(record)

    passed = replay_order(server, task, [record.worker for record in records], told)
    if passed:
        observer.message(f"{passed} turns were passed over: the rule had the worker wait")
    conductor.finish([], closing=lambda: recording.write_weights(workshop, server))
    return 0


class _RecordedClock:
    """The time of the recorded run; beyond its end, on at its mean pace."""

    def __init__(self, records: Sequence[TraceRecord]) -> None:
        self._times = [record.time_s for record in records]
        self._pace = self._times[-1] / len(self._times) if self._times else 0.0
        self._turn = 0
        self._now = 0.0

    def tick(self) -> None:
        """The next push has been dealt with."""
        known = self._turn < len(self._times)
        self._now = self._times[self._turn] if known else self._now + self._pace
        self._turn += 1

    def __call__(self) -> float:
        return self._now


def _device(job: Job) -> torch.device:
    return pick_device(job.device, 0)
