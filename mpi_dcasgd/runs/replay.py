"""Compute an asynchronous run again from its trace, in one process."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO, overload

import torch

from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.conductor import weights_sha256
from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.drivers.simulation.recorded_order import OrderReplay
from mpi_dcasgd.drivers.world import pick_device
from mpi_dcasgd.errors import ConfigError, RunFolderError
from mpi_dcasgd.learning.loaders.pool import Loaders
from mpi_dcasgd.record.environment import git_state
from mpi_dcasgd.record.shown import ShownStream
from mpi_dcasgd.runs.arguments import check_arguments, several
from mpi_dcasgd.runs.build import Workshop, start_loaders
from mpi_dcasgd.runs.data_check import check_replayed, replay_changes
from mpi_dcasgd.runs.given import GivenTask
from mpi_dcasgd.runs.jobs import with_task
from mpi_dcasgd.runs.process import process_as_it_was, run_of_one_process
from mpi_dcasgd.runs.recompute import recompute
from mpi_dcasgd.runs.recorded_run import RecordedRun
from mpi_dcasgd.runs.recording import Recording
from mpi_dcasgd.runs.replay_verdict import Replay, Verdict
from mpi_dcasgd.runs.result import Run
from mpi_dcasgd.runs.resume import AUTO
from mpi_dcasgd.runs.virtual import VirtualSetup, run_virtually
from mpi_dcasgd.wording import counted

_CPU = torch.device("cpu")


@overload
def replay(  # without changes there is no new run
    run: Run | Path | str,
    run_dir: None = None,
    *,
    code: Path | str | None = None,
    show: TextIO | None = None,
) -> Replay: ...


@overload
def replay(
    run: Run | Path | str,
    run_dir: Path | str | None = None,
    *,
    task: GivenTask | None = None,
    resume: Path | str = AUTO,
    overwrite: bool = False,
    code: Path | str | None = None,
    show: TextIO | None = None,
    stop: StopFlag | None = None,
    words: str | Sequence[str] = (),
    argv: str | Sequence[str] | None = None,
    started: float | None = None,
    **overrides: Any,
) -> Run: ...


def replay(
    run: Run | Path | str,
    run_dir: Path | str | None = None,
    *,
    task: GivenTask | None = None,
    resume: Path | str = AUTO,
    overwrite: bool = False,
    code: Path | str | None = None,
    show: TextIO | None = None,
    stop: StopFlag | None = None,
    words: str | Sequence[str] = (),
    argv: str | Sequence[str] | None = None,
    started: float | None = None,
    **overrides: Any,
) -> Replay | Run:
    """Compute an asynchronous run again, to check it or to see what another job had made of it.

    With changes of the job, a new run is written: who pushed when is the recorded run's; what the
    pushes do is the changed job's. Times in its folder are those of the recorded run.

    Args:
        run: A run over MPI, or its folder.
        run_dir: With changes: the folder of the new run; None to have one named in ``runs/``.
        task: A task of one's own in place of the job's, as in ``load_job``: a change.
        resume: With changes: ``auto`` for the newest checkpoint in ``run_dir``, ``never``, a
            checkpoint's file, or another run's folder.
        overwrite: With changes: replace a finished run that ``run_dir`` holds.
        code: Where the modules of one's own that the job names are looked for first: a folder, or
            ``recorded`` for the copies in the run folder; None for where the run had them from.
        show: Where progress is shown, such as ``sys.stdout``; None for nowhere.
        stop: As in ``simulate``.
        words: Changes as on the command line, ``key=value``.
        argv: The command line, for the record; None for this process's own.
        started: When start-up began, in ``time.monotonic``'s seconds; None for this call.
        **overrides: Changes by key, which go before ``words``.

    Returns:
        Without changes whether every gradient and the final weights are identical; with changes
        the new run.

    Raises:
        RunFolderError: There is no such run, its trace was changed, or it cannot be replayed.
        ConfigError: The changed job is wrong, or ``run_dir`` is given without changes.
        KeyboardInterrupt: With changes: Ctrl-C has stopped the run, which is saved.

    Example:
        The same delays under another rule::

            compensated = replay("runs/a", "runs/b", algorithm="dcasgd-a")
            print(compensated.summary["test_error"])
    """
    check_arguments(replay, locals())
    path = run.path if isinstance(run, Run) else Path(run)
    words, argv = several(words), None if argv is None else several(argv)
    overrides = with_task(overrides, task)
    if not words and not overrides:
        if run_dir is not None:
            raise ConfigError(
                "replay",
                ["run_dir: only with changes of the job; computing a run again writes nothing"],
            )
        with process_as_it_was():
            return _replay_exactly(path, show, code)
    started = time.monotonic() if started is None else started
    flag = StopFlag() if stop is None else stop
    recorded = RecordedRun.open(path, words, overrides, code)
    if recorded.job.mode != "asynchronous":
        raise RunFolderError(
            f"algorithm={recorded.job.algorithm}: has no pushes to put in a recorded order; choose "
            "an asynchronous algorithm"
        )
    with (
        process_as_it_was(),
        recorded.job.importing(),
        flag.listening() if stop is None else nullcontext(),
        start_loaders(recorded.job) as loaders,
    ):
        setup, order = _setup(recorded, loaders)
        recording = Recording(
            recorded.job,
            None if run_dir is None else Path(run_dir),
            argv,
            git_state(),
            overwrite=overwrite,
            resume=os.fspath(resume),
            virtual={"order": recorded.digest, "pushes": len(recorded.trace)},
            show=show,
        )
        try:
            run_virtually(
                recording,
                setup,
                flag,
                started,
                beginning="\n".join([f"in the order of {path}", *recorded.code_changes()]),
                ending=lambda _: (
                    f"{counted(order.passed, 'turn')} passed over: the rule had the worker wait"
                    if order.passed
                    else ""
                ),
            )
        finally:
            recording.close()
    return run_of_one_process(recording.folder.path, flag, own=stop is None)


def _replay_exactly(path: Path, show: TextIO | None, code: Path | str | None) -> Replay:
    run = RecordedRun.open(path, code=code)
    with run.job.importing(), start_loaders(run.job) as loaders:
        return _compute_again(run, show, loaders)


def _compute_again(run: RecordedRun, show: TextIO | None, loaders: Loaders) -> Replay:
    path = run.folder.path
    pushes = list(run.trace.records())
    workshop = Workshop.open(run.job, _device(run.job), loaders=loaders)
    data_changes = tuple(replay_changes(run.folder, workshop))
    if show is not None:
        counts = f"{counted(run.num_workers, 'worker')}, {counted(len(pushes), 'push')}"
        head = f"{path}: {run.job.algorithm}, {counts}"
        print(head, file=ShownStream(show), flush=True)
    began = time.monotonic()
    server, difference = recompute(run, workshop, pushes)
    seconds = time.monotonic() - began
    sha = weights_sha256(server.weights, server.layout)
    verdict: Verdict = "identical"
    recorded_sha = run.weights_sha256
    if difference is not None:
        verdict = "different"
    elif run.trace.truncated:
        verdict = "cut" if run.folder.is_finished() else "identical"
        recorded_sha = ""
    elif recorded_sha and sha != recorded_sha:
        verdict = "different"
    return Replay(
        verdict=verdict,
        path=path,
        pushes=len(pushes),
        updates=server.version,
        seconds=seconds,
        difference=difference,
        push=None if difference is None else pushes[difference.number],
        weights_sha256=sha,
        recorded_sha256=recorded_sha,
        code_changes=tuple(run.code_changes()),
        data_changes=data_changes,
        damage=_damage(run) if recorded_sha else "",
    )


def _damage(run: RecordedRun) -> str:
    """Return what is wrong with the run's file of final weights, which computes nothing here."""
    try:
        run.folder.weights()
    except RunFolderError as error:
        return f"but the file is damaged: {error}"
    return ""


def _setup(recorded: RecordedRun, loaders: Loaders) -> tuple[VirtualSetup, OrderReplay]:
    workshop = Workshop.open(recorded.job, _device(recorded.job), loaders=loaders)
    check_replayed(recorded.folder, recorded.job, workshop)
    num_workers = max(stretch.num_workers for stretch in recorded.stretches)
    workshop.check_memory(num_workers)
    server = workshop.server(num_workers, _CPU)
    learner = workshop.learner(workshop.flat_model(workshop.device))
    records = list(recorded.trace.records())
    order = OrderReplay(
        server,
        learner,
        [record.worker for record in records],
        [record.time_s for record in records],
    )
    setup = VirtualSetup(
        run=order,
        server=server,
        workshop=workshop,
        driver="replay",
        num_workers=num_workers,
        world_size=1,
        settings=recorded.job.record,
    )
    return setup, order


def _device(job: Job) -> torch.device:
    return pick_device(job.device, 0)
