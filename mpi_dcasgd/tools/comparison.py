"""Many runs one after the other, each in a folder of its own; what is finished is not repeated."""

from __future__ import annotations

import io
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol, TextIO

from mpi_dcasgd.errors import LaunchError, UserError
from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.record.job_changes import changed_keys
from mpi_dcasgd.record.results import no_result
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.shown import ShownStream
from mpi_dcasgd.record.study_folder import StudyFolder
from mpi_dcasgd.stop_signals import SIGNALS
from mpi_dcasgd.tools.launch import world as launch
from mpi_dcasgd.tools.launch.failure_reason import last_words
from mpi_dcasgd.tools.launch.hosts import Without
from mpi_dcasgd.tools.launch.mpirun import MpirunCommand
from mpi_dcasgd.tools.launch.starts import Launched, Starts
from mpi_dcasgd.tools.locks import alone_in
from mpi_dcasgd.tools.status_line import StatusLine
from mpi_dcasgd.wording import counted

_STOPPED = {128 + number for number in SIGNALS}

State = Literal["missing", "unfinished", "changed", "finished"]


class PlannedCluster(Protocol):
    """Cluster of a simulated run."""

    def differs(self, stored: Path) -> bool:
        """Return whether a run made on the cluster in the file ``stored`` was on another one."""

    def write(self) -> None:
        """Make the file that the run's program reads; a UserError says why it cannot be made."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison.

    Attributes:
        name: Its folder's name.
        folder: Its run folder.
        job: The resolved job as plain values, as the folder will hold it.
        num_workers: Workers, as the folder's summary will say.
        program: The command of each rank.
        ranks: Processes; None starts ``program`` without an mpirun.
        cluster: The cluster of a simulated run.
        read_stored: The present meaning of a stored job; an earlier version's may lack keys.
    """

    name: str
    folder: RunFolder
    job: Mapping[str, Any]
    num_workers: int
    program: tuple[str, ...]
    ranks: int | None
    cluster: PlannedCluster | None = None
    read_stored: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict


@dataclass(frozen=True)
class Found:
    """The content of a run's folder before it is started; ``changes`` are keys that differ."""

    state: State
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """The end of one run of a comparison.

    Attributes:
        run: The run.
        status: ``kept`` was finished before.
        summary: Its summary, if it completed.
        reason: The error, if it failed.
        signum: The signal that interrupted it.
        restarts: How often it was started again.
    """

    run: PlannedRun
    status: Literal["kept", "completed", "failed", "interrupted"]
    summary: Mapping[str, Any]
    reason: str = ""
    signum: int = signal.SIGINT
    restarts: int = 0


@dataclass(frozen=True)
class _StudyWorld:
    """The world of a study's run, of which the study decides the size."""

    run: PlannedRun
    launcher: str | None
    mpirun: str | None
    mpirun_args: Sequence[str]
    begins_anew: bool = False

    @property
    def sequential(self) -> bool:
        return self.run.ranks is None

    @property
    def ranks(self) -> int:
        return self.run.ranks or 1

    def command(self, run_dir: Path | None = None, without: Without | None = None) -> MpirunCommand:
        if self.sequential:
            return MpirunCommand(self.run.program)
        return launch.plan(
            self.ranks,
            self.run.program,
            launcher=self.launcher,
            mpirun=self.mpirun,
            extra=self.mpirun_args,
            terminal=False,
            without=without,
        )

    def again(self, ranks: int, *, resumes: bool) -> _StudyWorld:
        if ranks != self.ranks:
            raise LaunchError(
                f"the study asks for {counted(self.ranks, 'rank')}, and there is room for {ranks} "
                "without the lost host"
            )
        return self


class Comparison:
    """Runs what is not there yet.

    Args:
        out: The folder of the runs; exists.
        stream: Where one line a run is written; None for nowhere.
        mpirun: The mpirun to use; None for the usual.
        mpirun_args: Further arguments for it.
        launcher: ``auto``, ``mpirun``, ``srun``; None for the usual.
        beside_others: Other comparisons may be at work on other runs in ``out``.
        restarts: How often a run that ends early is started again, to resume by itself.

    Attributes:
        outcomes: One for each run so far.
        stopped_by: The signal that ended it early.
    """

    def __init__(
        self,
        out: Path | StudyFolder,
        stream: TextIO | None,
        mpirun: str | None = None,
        mpirun_args: Sequence[str] = (),
        *,
        launcher: str | None = None,
        beside_others: bool = False,
        restarts: int = 0,
    ) -> None:
        self.out = out if isinstance(out, StudyFolder) else StudyFolder(out)
        self.outcomes: list[Outcome] = []
        self.stopped_by: int | None = None
        self._launcher = launcher
        self._beside_others = beside_others
        self._restarts = restarts
        self._stream = ShownStream.of(stream)  # one that fails once stays silent
        self._mpirun = mpirun
        self._mpirun_args = mpirun_args

    def run(self, runs: Sequence[PlannedRun], *, rerun: bool = False) -> list[Outcome]:
        """Run them in order; one that fails does not keep the others from running.

        Args:
            runs: Their folders are within ``out``.
            rerun: Do not keep finished ones either.

        Returns:
            One outcome each, up to the one that was interrupted, if one was.

        Raises:
            LaunchError: There is no mpirun, or this is no place to start ranks in.
            RunFolderError: Another comparison is at work in ``out``, or it cannot be written.
        """
        if any(run.ranks is not None for run in runs):
            # There is no point in beginning without a launcher.
            launch.plan(1, (), launcher=self._launcher, mpirun=self._mpirun)
            launch.refuse_place(self._launcher, self._mpirun, self._mpirun_args)
        outcomes = self.outcomes = []
        width = max((len(run.name) for run in runs), default=0)
        shared = [run.name for run in runs] if self._beside_others else None
        with alone_in(self.out, shared), self._heeding(signal.SIGUSR1):
            for number, run in enumerate(runs, start=1):
                if self.stopped_by:  # by a signal that came too late for the run before
                    break
                place = f"[{number:>{len(str(len(runs)))}}/{len(runs)}] {run.name:<{width}}"
                outcomes.append(self._one(run, place, rerun=rerun))
                if outcomes[-1].status == "interrupted":
                    self.stopped_by = self.stopped_by or outcomes[-1].signum
                    break
        return outcomes

    @contextmanager
    def _heeding(self, signum: int) -> Iterator[None]:
        """Within it the signal, which `launch.run` passes on, keeps the next run from starting."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Python lets only the main thread have handlers
            return

        def note(number: int, frame: FrameType | None) -> None:
            self.stopped_by = number

        before = signal.signal(signum, note)
        try:
            yield
        finally:
            signal.signal(signum, before)

    def _one(self, run: PlannedRun, place: str, *, rerun: bool) -> Outcome:
        line = StatusLine(self._stream, place, run.folder)
        found = look_at(run)
        if found.state == "finished" and not rerun:
            outcome = Outcome(run, "kept", run.folder.summary(lenient=True))
            line.finish(f"finished before   {_figures(outcome.summary)}")
            return outcome
        goes_on = found.state == "unfinished" and run.folder.has_checkpoint()
        try:
            if not goes_on:  # it is appended to then
                run.folder.refuse_strange_output()
            if run.cluster is not None:
                run.cluster.write()
        except UserError as error:
            line.finish(f"{'failed':<15}   not started")
            line.note(str(error).partition("\n")[0])
            return Outcome(run, "failed", {}, str(error))
        if found.state in ("changed", "finished"):
            moved = self.out.move_aside(run.name)
            if found.state == "changed":
                line.note(f"{_changed(found.changes)}; the earlier run is now {moved}")
        if found.state == "unfinished":
            how = "resuming from its checkpoint" if goes_on else "starting over"
            line.note(f"did not finish before; {how}")
        started = time.monotonic()
        with line.live():
            launched = self._execute(run, line, goes_on=goes_on)
        spent_s = time.monotonic() - started
        outcome = _outcome(run, launched)
        words = _figures(outcome.summary) if outcome.summary else f"exit status {launched.status}"
        again = f", restarted {counted(outcome.restarts, 'time')}"
        told = f"{spent_s:.1f} s in all{again if outcome.restarts else ''}"
        line.finish(f"{outcome.status:<15}   {words}   {told}")
        if outcome.status == "failed":
            line.note(outcome.reason.partition("\n")[0])
        return outcome

    def _execute(self, run: PlannedRun, line: StatusLine, *, goes_on: bool) -> Launched:
        run.folder.path.mkdir(parents=True, exist_ok=True)
        plan = _StudyWorld(run, self._launcher, self._mpirun, self._mpirun_args)
        with open(run.folder.output_log, "ab" if goes_on else "wb", buffering=0) as log:
            # The command, which is shown on stderr, belongs to the log, too.
            with redirect_stderr(io.TextIOWrapper(log, write_through=True)) as text:
                starts = Starts(plan, run.folder.path, self._restarts, output=log, tell=line.note)
                launched = starts.until_the_end()
            text.detach()
        self.stopped_by = self.stopped_by or starts.told_to_stop
        return launched


def look_at(run: PlannedRun) -> Found:
    """Look whether a run's folder holds it already, finished, of the same job and size.

    An unfinished run counts as changed, too, if the planned run cannot resume it.
    """
    folder = run.folder
    summary = folder.summary(lenient=True)
    if not folder.is_run() and not folder.summary_json.is_file():
        return Found("unfinished" if folder.path.exists() else "missing")
    finished = folder.is_finished()
    changes = changed_keys(run.read_stored(folder.job(lenient=True)), run.job)
    if finished and summary.get("num_workers") != run.num_workers:
        changes += ("number of workers",)
    stored = folder.cluster_yaml
    if run.cluster is not None and (finished or stored.is_file()):
        changes += ("cluster",) if run.cluster.differs(stored) else ()
    if changes:
        return Found("changed", changes)
    return Found("finished" if finished else "unfinished")


def _changed(changes: Sequence[str]) -> str:
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return f"its job has changed ({', '.join(changes[:3])}{more})"


def _outcome(run: PlannedRun, launched: Launched) -> Outcome:
    folder, status, restarts = run.folder, launched.status, launched.restarts
    if status == 0:
        return Outcome(run, "completed", folder.summary(lenient=True), restarts=restarts)
    if status in _STOPPED:
        return Outcome(run, "interrupted", {}, signum=status - 128, restarts=restarts)
    reason = f"{last_words(launched.words)}\n(all of it: {folder.output_log})"
    return Outcome(run, "failed", {}, reason, restarts=restarts)


def _figures(summary: Mapping[str, Any]) -> str:
    measures, wall_s = Measures.recorded(summary), summary.get("wall_s")
    value = summary.get(f"test_{measures.primary}")
    shown = measures.shown(measures.primary, value if isinstance(value, (int, float)) else None)
    trained = f"{wall_s:.1f} s" if isinstance(wall_s, (int, float)) else "-"
    missing = no_result(summary.get("not_numbers") or ())
    figures = f"test {measures.primary} {shown:>8}   trained {trained}"
    return f"{figures}   {missing}" if missing else figures
