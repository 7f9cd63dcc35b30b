"""Start a job many times, let faults strike it, and check that nothing is lost."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mpi_dcasgd.config.plan import plan_job
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.errors import ConfigError, DcasgdError, LaunchError, RunFolderError
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.trace import Trace
from mpi_dcasgd.runs.jobs import load_job
from mpi_dcasgd.runs.launch import plan_launch
from mpi_dcasgd.runs.launch_plan import Launcher
from mpi_dcasgd.runs.replay import replay
from mpi_dcasgd.shipped import shipped
from mpi_dcasgd.tools.chaos.checks import (
    Failure,
    check_continued,
    check_files,
    check_leftovers,
    check_summary,
    check_tickets,
    whole_checkpoint,
)
from mpi_dcasgd.tools.chaos.hosts import lacking, on_hosts
from mpi_dcasgd.tools.chaos.plan import ELSEWHERE, KINDS, Plan, draw, pick_kinds
from mpi_dcasgd.tools.chaos.start import Bounds, Start, run_start
from mpi_dcasgd.tools.chaos.verdict import Verdict, judge_start

_SMALL = ("epochs=6", "model.hidden=[64]", "inject={delays: {model: constant, mean_s: 0.02}}")
"""What makes of the example job one that trains for some seconds."""

_FITTING: tuple[tuple[str, object, str], ...] = (
    ("faults.patience", "auto", "faults.patience=3"),
    ("faults.setup_patience", "auto", "faults.setup_patience=30"),
    ("checkpoint.every", None, "checkpoint.every=1"),
    ("record.trace_flush_s", 1.0, "record.trace_flush_s=0.02"),
)
"""Settings that faults can be seen by in a short run, for jobs that leave them as they are."""

_STARTS = 5
"""Starts after which a run that is still not complete is lost."""


@dataclass(frozen=True)
class Chaos:
    """Runs that faults are to strike.

    Attributes:
        file: The job's file.
        words: Changes of the job, those that make it fit for a short run among them.
        asked: Job, changes and kinds as they were asked for, on a command line.
        workers: Workers of each run.
        ranks: Ranks of each run, the server's among them.
        runs: Number of runs.
        seed: Decides which faults strike, whom and when.
        kinds: Kinds of faults.
        modes: Whether to start with ``--fault-tolerant``, in turn.
        limit_s: Seconds within which a start has to end after its last fault.
        patience_s: Patience of the job with ranks that hang.
        total: Tickets of a run.
        left_out: Kinds that cannot be tried here, and why, a line each.
    """

    file: Path
    words: tuple[str, ...]
    asked: tuple[str, ...]
    workers: int
    ranks: int
    runs: int
    seed: int
    kinds: tuple[str, ...]
    modes: tuple[bool, ...]
    limit_s: float
    patience_s: float
    total: int
    left_out: tuple[str, ...] = ()

    def plan(self, run: int) -> Plan:
        """Return what happens to one of the runs."""
        servers = self.ranks - self.workers
        return draw(self.seed, run, self.kinds, self.workers, modes=self.modes, servers=servers)

    def command(self, run: int) -> str:
        """The command that repeats one of the runs."""
        words = ["mpi-dcasgd", "chaos", *self.asked, "-n", str(self.workers)]
        words += ["--seed", str(self.seed)]
        words += {(True,): ["--fault-tolerant"], (False, True): ["--both"]}.get(self.modes, [])
        return shlex.join([*words, "--only", str(run)])


def prepare(
    file: Path | str | None = None,
    *,
    words: Sequence[str] = (),
    runs: int = 200,
    seed: int = 0,
    workers: int = 4,
    kinds: Sequence[str] = tuple(KINDS),
    modes: Sequence[bool] = (False,),
    limit_s: float = 120.0,
) -> Chaos:
    """Check what is asked for; nothing is started.

    Args:
        file: The job's file; None for the example of the digits, made short.
        words: Changes of the job, ``key=value``.
        runs: Number of runs.
        seed: Decides which faults strike, whom and when.
        workers: Workers of each run.
        ranks: Ranks of each run, the server's among them.
        kinds: Kinds of faults, by name or by the word that a name begins with.
        modes: Whether to start with ``--fault-tolerant``, in turn.
        limit_s: Seconds within which a start has to end after its last fault.

    Raises:
        ConfigError: The job is wrong, is not asynchronous, keeps no trace, or a kind is unknown.
        LaunchError: There is no launcher, or none that is fault-tolerant where that is asked for.

    Example:
        >>> chaos = prepare(runs=2, kinds=["kill"])
        >>> chaos.kinds, str(chaos.plan(1))
        (('kill-worker', 'kill-server', 'kill-mpirun'), 'kill-mpirun at 3 % of the tickets')
    """
    chosen, given = pick_kinds(kinds), tuple(words)
    asked = (*([] if file is None else [str(file)]), *given)
    if tuple(kinds) != tuple(KINDS):
        asked += ("--kinds", ",".join(kinds))
    if file is None:
        file, given = shipped("jobs/digits.yaml"), (*_SMALL, *given)
    file = Path(file)
    job = load_job(file, words=given)
    _refuse(job, file)
    fitting = [word for key, default, word in _FITTING if _setting(job, key) == default]
    words = (*fitting, *given)
    job = load_job(file, words=words)
    ranks = job.world(workers).world_size
    for fault_tolerant in modes:
        launcher = Launcher(fault_tolerant=fault_tolerant)
        plan_launch(file, ranks, words=words, launcher=launcher).command(Path("run"))
    left_out = []
    if ELSEWHERE in chosen and (reason := lacking()):
        chosen = tuple(kind for kind in chosen if kind != ELSEWHERE)
        left_out.append(f"{ELSEWHERE}: {reason}")
        if not chosen:
            raise LaunchError(f"no kind of fault can be tried here: {left_out[0]}")
    return Chaos(
        file=file,
        words=words,
        asked=asked,
        workers=workers,
        ranks=ranks,
        runs=runs,
        seed=seed,
        kinds=chosen,
        modes=tuple(modes),
        limit_s=limit_s,
        patience_s=float(job.faults.patience) if isinstance(job.faults.patience, float) else 60.0,
        total=plan_job(job, ranks).tickets,
        left_out=tuple(left_out),
    )


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
    verdicts = []
    for run in range(chaos.runs) if only is None else only:
        plan = chaos.plan(run)
        place = _folder(keep, run)
        verdict = Verdict(plan, chaos.command(run))
        whole = False
        try:
            _one_run(chaos, verdict, RunFolder(place / "run"), place)
            whole = not verdict.failures
        finally:
            if keep is None and (whole or sys.exc_info()[0] is not None):
                shutil.rmtree(place, ignore_errors=True)
            else:
                verdict.kept = place
        verdicts.append(verdict)
        told(verdict)
    return verdicts


def _one_run(chaos: Chaos, verdict: Verdict, folder: RunFolder, place: Path) -> None:
    """Start a run until it is complete, and judge it."""
    began = time.monotonic()
    bounds = Bounds(max(300.0, chaos.limit_s), chaos.limit_s, chaos.patience_s)
    argv = [sys.executable, "-m", "mpi_dcasgd", "run", "-n", str(chaos.ranks)]
    argv += [str(chaos.file), *chaos.words, "--run-dir", str(folder.path)]
    argv += ["--fault-tolerant"] if verdict.plan.fault_tolerant else []
    if any(fault.kind == ELSEWHERE for fault in verdict.plan.faults):
        argv = on_hosts(argv, place, chaos.ranks)
    faults = list(verdict.plan.faults)
    # Sockets lie in it, whose paths must be short.
    temporary = Path(tempfile.mkdtemp(prefix="chaos-"))
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
            before = _follow_trace(verdict, folder, before, start, resumable=resumable)
            # What is refused though nothing struck it would be refused again.
            if start.completed or (start.status == 2 and not start.struck):
                break
        verdict.at_once = start.completed and verdict.starts == 1
        if start.completed:
            _judge_complete(verdict, folder)
        else:
            told = start.output.strip().splitlines()[-1:] or ["no output"]
            text = f"not complete after {verdict.starts} starts: {told[0]}"
            verdict.failures.append(Failure("lost", text))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    verdict.seconds = time.monotonic() - began


def _follow_trace(
    verdict: Verdict, folder: RunFolder, before: Trace | None, start: Start, *, resumable: bool
) -> Trace | None:
    """Judge the trace that a start has left, and return it."""
    verdict.failures += check_files(folder)
    try:
        trace = folder.trace()
    except RunFolderError as error:
        if folder.trace_bin.exists():
            verdict.failures.append(Failure("files", str(error)))
        return before
    verdict.failures += check_tickets(trace, complete=start.completed)
    verdict.failures += check_continued(before, trace, resumable=resumable)
    return trace


def _judge_complete(verdict: Verdict, folder: RunFolder) -> None:
    """Judge a run that is complete: its numbers, a replay, and what it has left."""
    with suppress(RunFolderError):  # told already
        verdict.failures += check_summary(folder.trace(), folder.summary())
    verdict.failures += check_leftovers(folder)
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


def _refuse(job: Job, file: Path) -> None:
    """Refuse a job of which nothing can be checked."""
    problems = []
    if job.mode != "asynchronous":
        problems.append(
            f"algorithm: {job.algorithm} is {job.mode}, and has no trace to check; choose an "
            "asynchronous one"
        )
    if not job.record.trace:
        problems.append("record.trace: got false, so that nothing could be checked; omit it")
    if problems:
        raise ConfigError(f"chaos {file}", problems)


def _setting(job: Job, key: str) -> object:
    value: object = job
    for name in key.split("."):
        value = getattr(value, name)
    return value
