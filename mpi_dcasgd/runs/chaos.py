"""Start a job many times, let faults strike it, and check that nothing is lost."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from mpi_dcasgd.errors import DcasgdError, LaunchError, RunFolderError
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.trace import Trace
from mpi_dcasgd.runs.chaos_plan import Chaos
from mpi_dcasgd.runs.replay import replay
from mpi_dcasgd.tools.chaos.checks import (
    Failure,
    check_continued,
    check_files,
    check_leftovers,
    check_repeated,
    check_summary,
    check_tickets,
    whole_checkpoint,
)
from mpi_dcasgd.tools.chaos.hosts import on_hosts
from mpi_dcasgd.tools.chaos.plan import ELSEWHERE, Plan
from mpi_dcasgd.tools.chaos.start import Bounds, Start, run_start
from mpi_dcasgd.tools.chaos.verdict import Verdict, judge_start
from mpi_dcasgd.tools.launch.failure_reason import last_words
from mpi_dcasgd.wording import counted

_STARTS = 5
"""Starts after which a run that is still not complete is lost."""


def chaos_runs(
    chaos: Chaos,
    *,
    only: Sequence[int] | None = None,
    keep: Path | None = None,
    told: Callable[[Verdict], None] = lambda verdict: None,
) -> list[Verdict]:
    """Start the runs one after the other, let faults strike them, and check what is left.

    Args:
        chaos: From `prepare`.
        only: Numbers of the runs that are made; None for all.
        keep: Folder in which every run's folder stays; None to keep, in the folder for temporary
            files, those of runs that failed.
        told: Is given each verdict when it is there.

    Raises:
        RunFolderError: ``keep`` cannot be written, or holds such runs already.

    Example:
        Ten runs, and whether all of them were whole::

            verdicts = chaos_runs(prepare("jobs/digits.yaml", runs=10))
            assert not any(verdict.failures for verdict in verdicts)
    """
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="chaos-reference-") as name:
        references = _References(chaos, Path(name))
        for run in range(chaos.runs) if only is None else only:
            verdicts.append(_kept_run(chaos, run, keep, references))
            told(verdicts[-1])
    return verdicts


class _References:
    """Runs of a synchronous job that nothing strikes; other runs are compared with their traces.

    Args:
        chaos: What is tried.
        place: A folder for them.
    """

    def __init__(self, chaos: Chaos, place: Path) -> None:
        self._chaos = chaos
        self._place = place
        self._made: dict[bool, RunFolder] = {}

    def like(self, plan: Plan) -> RunFolder | None:
        """Return the one with whose bits a run has to come out; None for an asynchronous job.

        Several hosts add gradients up in another order than one does, and have one of their own.

        Raises:
            LaunchError: Not even that run completes.
        """
        hosts = _needs_hosts(plan)
        if not self._chaos.world.num_servers and hosts not in self._made:
            self._made[hosts] = self._make(hosts)
        return self._made.get(hosts)

    def _make(self, hosts: bool) -> RunFolder:
        chaos, place = self._chaos, self._place / ("hosts" if hosts else "host")
        place.mkdir()
        folder, temporary = RunFolder(place / "run"), _temporary()
        argv = chaos.argv(folder.path, fault_tolerant=chaos.modes[0])
        start = run_start(
            on_hosts(argv, place, chaos.world.world_size) if hosts else argv,
            folder,
            [],
            _bounds(chaos),
            total=chaos.total,
            output=place / "start.txt",
            temporary=temporary,
        )
        shutil.rmtree(temporary, ignore_errors=True)
        if not start.completed:
            told = last_words(start.output)
            raise LaunchError(f"the job does not complete without a fault:\n{told}")
        return folder


def _temporary() -> Path:
    """Make a folder for temporary files; sockets lie in it, whose paths must be short."""
    return Path(tempfile.mkdtemp(prefix="chaos-"))


def _needs_hosts(plan: Plan) -> bool:
    return any(fault.kind == ELSEWHERE for fault in plan.faults)


def _kept_run(chaos: Chaos, run: int, keep: Path | None, references: _References) -> Verdict:
    """Make one of the runs; its folder stays if it is to, or if the run failed."""
    plan = chaos.plan(run)
    place = _folder(keep, run)
    verdict = Verdict(plan, chaos.command(run))
    whole = False
    try:
        _one_run(chaos, verdict, place, references.like(plan))
        whole = not verdict.failures
    finally:
        if keep is None and (whole or sys.exc_info()[0] is not None):
            shutil.rmtree(place, ignore_errors=True)
        else:
            verdict.kept = place
    return verdict


def _bounds(chaos: Chaos) -> Bounds:
    return Bounds(max(300.0, chaos.limit_s), chaos.limit_s, chaos.patience_s)


def _one_run(chaos: Chaos, verdict: Verdict, place: Path, reference: RunFolder | None) -> None:
    """Start a run until it is complete, and judge it."""
    began, folder, bounds = time.monotonic(), RunFolder(place / "run"), _bounds(chaos)
    argv = chaos.argv(folder.path, fault_tolerant=verdict.plan.fault_tolerant)
    if _needs_hosts(verdict.plan):
        argv = on_hosts(argv, place, chaos.world.world_size)
    faults = list(verdict.plan.faults)
    temporary = _temporary()
    compiled = {"TORCHINDUCTOR_CACHE_DIR": str(place / "compiled")}
    before: Trace | None = None
    try:
        for number in range(_STARTS):
            resumable = whole_checkpoint(folder) is not None
            start = run_start(
                argv,
                folder,
                faults,
                bounds,
                total=chaos.total,
                output=place / f"start-{number + 1}.txt",
                temporary=temporary,
                environment=compiled,
            )
            judge_start(verdict, start, folder, chaos.patience_s, chaos.total)
            before = _follow_trace(
                verdict, folder, before, start, total=chaos.total, resumable=resumable
            )
            # What is refused though nothing struck it would be refused again.
            if start.completed or (start.status == 2 and not start.struck):
                break
        verdict.at_once = start.completed and verdict.starts == 1
        if start.completed:
            _judge_complete(verdict, folder, reference)
        else:
            told = start.output.strip().splitlines()[-1:] or ["no output"]
            text = f"not complete after {counted(verdict.starts, 'start')}: {told[0]}"
            verdict.failures.append(Failure("lost", text))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    verdict.seconds = time.monotonic() - began


def _follow_trace(
    verdict: Verdict,
    folder: RunFolder,
    before: Trace | None,
    start: Start,
    *,
    total: int,
    resumable: bool,
) -> Trace | None:
    """Judge the trace that a start has left, and return it."""
    verdict.failures += check_files(folder)
    try:
        trace = folder.trace()
    except RunFolderError as error:
        if folder.trace_bin.exists():
            verdict.failures.append(Failure("files", str(error)))
        return before
    verdict.failures += check_tickets(trace, total=total, complete=start.completed)
    verdict.failures += check_continued(before, trace, resumable=resumable)
    return trace


def _judge_complete(verdict: Verdict, folder: RunFolder, reference: RunFolder | None) -> None:
    """Judge a run that is complete: its numbers, that it repeats, and what it has left."""
    with suppress(RunFolderError):  # told already
        verdict.failures += check_summary(folder.trace(), folder.summary())
    verdict.failures += check_leftovers(folder)
    if reference is not None:  # a synchronous run repeats itself, and is not replayed
        with suppress(RunFolderError):  # told already
            verdict.failures += check_repeated(folder, reference)
        return
    try:
        found = replay(folder.path)
    except DcasgdError as error:
        verdict.failures.append(Failure("replay", f"{type(error).__name__}: {error}"))
        return
    if not found.identical:
        verdict.failures.append(Failure("replay", str(found)))


def _folder(keep: Path | None, run: int) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix=f"chaos-run-{run}-"))
    place = keep.resolve() / f"run-{run}"
    try:
        place.mkdir(parents=True)
    except FileExistsError as error:
        raise RunFolderError(f"--keep {keep}: holds {place.name} already") from error
    except OSError as error:
        raise RunFolderError(f"--keep {keep}: cannot be written: {error.strerror}") from error
    return place
