"""Start the world of a job with mpirun or srun, and wait for it."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from mpi_dcasgd.config.plan import available_bytes, check_memory, check_ranks, plan_job
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.errors import UserError
from mpi_dcasgd.record.restarts import write_restarts
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.jobs import load_job
from mpi_dcasgd.runs.restarts import Ending, as_restart, hosts_of, pause_s, reason_to_stay
from mpi_dcasgd.tools.launch import world
from mpi_dcasgd.tools.launch.exit_status import RunEnd
from mpi_dcasgd.tools.launch.hosts import Without, is_one_of
from mpi_dcasgd.tools.launch.mpirun import MpirunCommand
from mpi_dcasgd.tools.launch.relay import Tail
from mpi_dcasgd.tools.launch.srun import allocated_tasks
from mpi_dcasgd.tools.launch.steering import handling

_LOOK_S = 0.1


@dataclass(frozen=True)
class Launcher:
    """Choice of the launcher and its options.

    Attributes:
        name: ``auto``, ``mpirun`` or ``srun``; None for the variable MPI_DCASGD_LAUNCHER.
        mpirun: Path of the mpirun to use; None for this Python's.
        arguments: Further arguments for it.
        fault_tolerant: Let the run outlive the death of a worker.
    """

    name: str | None = None
    mpirun: str | None = None
    arguments: tuple[str, ...] = ()
    fault_tolerant: bool = False


@dataclass(frozen=True)
class LaunchPlan:
    """A world that is to be started.

    Attributes:
        job: The checked job.
        file: Its file, which the ranks read.
        ranks: Processes.
        words: Changes of the job.
        options: What the ranks are told beside the file, the words and ``--run-dir``.
        run_dir: The run folder that was asked for.
        launcher: Who starts them.
    """

    job: Job
    file: Path
    ranks: int
    words: tuple[str, ...]
    options: tuple[str, ...]
    run_dir: Path | None
    launcher: Launcher

    @property
    def sequential(self) -> bool:
        """True if the run is one process, which needs no launcher."""
        return self.job.mode == "sequential"

    @property
    def begins_anew(self) -> bool:
        """True if the ranks are told not to go on from what the run folder holds."""
        never = "never" in self.options
        return never or ("--overwrite" in self.options and "--resume" not in self.options)

    def command(self, run_dir: Path | None = None, without: Without | None = None) -> MpirunCommand:
        """The command that starts the world.

        Args:
            run_dir: The run folder, if not the one that was asked for.
            without: Hosts that are left out.

        Raises:
            LaunchError: There is no launcher, or no host.
        """
        where = run_dir or self.run_dir
        options = [*self.options, *(["--run-dir", str(where)] if where else [])]
        program = world.rank_program(str(self.file), [*self.words, *options])
        if self.sequential:
            return MpirunCommand(tuple(program))
        launcher = self.launcher
        return world.plan(
            self.ranks,
            program,
            launcher=launcher.name,
            mpirun=launcher.mpirun,
            fault_tolerant=launcher.fault_tolerant,
            extra=list(launcher.arguments),
            without=without,
        )


@dataclass(frozen=True)
class Launched:
    """End of a world: its exit status and its run.

    Attributes:
        status: The exit status.
        complaint: What is wrong with a success that the launcher reports, or an empty string.
    """

    status: int
    complaint: str = ""


def plan_launch(
    file: Path,
    ranks: int | None = None,
    *,
    words: Sequence[str] = (),
    run_dir: Path | None = None,
    resume: str | None = None,
    overwrite: bool = False,
    launcher: Launcher | None = None,
) -> LaunchPlan:
    """Check a job and plan its world; nothing is started.

    Args:
        file: The job's file.
        ranks: Processes, a server included; None for what SLURM has allocated.
        words: Changes of the job, ``key=value``.
        run_dir: The run folder; None to have one named after the job.
        resume: As for ``train``; None for its default.
        overwrite: Replace a finished run.
        launcher: Who starts the ranks.

    Raises:
        ConfigError: The job is wrong.
        LaunchError: The number of ranks is.
    """
    job = load_job(file, words=words)
    sequential = job.mode == "sequential"
    ranks = check_ranks(job, ranks or (None if sequential else allocated_tasks()))
    options = ["--overwrite"] if overwrite else []
    options += ["--resume", resume] if resume is not None else []
    return LaunchPlan(
        job, file, ranks, tuple(words), tuple(options), run_dir, launcher or Launcher()
    )


def launch(plan: LaunchPlan, restarts: int = 0) -> Launched:
    """Start a world and wait for its end; its output goes where this process's goes.

    Args:
        plan: From `plan_launch`.
        restarts: How often a run that ends early is started again, to resume by itself.

    Raises:
        ConfigError: The job needs more memory than there is.
        LaunchError: There is no launcher, or this is no place to start ranks in.
        RunFolderError: The run folder cannot be made.
    """
    # Rank 0, which needs the most, is started where mpirun is, unless a host file says otherwise.
    check_memory(plan_job(plan.job, plan.ranks), available_bytes(), str(plan.file))
    if plan.sequential and not restarts:
        return Launched(world.run(plan.command()))
    if not plan.sequential:
        launcher = plan.launcher
        world.refuse_place(launcher.name, launcher.mpirun, launcher.arguments)
    # The ranks' end is told in there, whatever their launcher makes of it.
    run_dir = plan.run_dir or _new_folder(plan.job)
    try:
        return _Starts(plan, run_dir, restarts).until_the_end()
    finally:
        if not plan.run_dir:
            with suppress(OSError):  # it holds a run
                run_dir.rmdir()


class _Starts:
    """Starts of a run one after the other, until it has ended well or will not.

    Args:
        plan: The first one.
        run_dir: The run folder.
        allowed: How many more there may be.
    """

    def __init__(self, plan: LaunchPlan, run_dir: Path, allowed: int) -> None:
        self._plan = plan
        self._first = plan
        self._folder = RunFolder(run_dir)
        self._allowed = allowed
        self._stamps = {} if plan.begins_anew else self._folder.checkpoint_stamps()
        self._before = self._folder.checkpoint_stamps()
        self._notes = self._folder.restarts() if self._stamps else []
        self._lost: list[str] = []
        self._signum: int | None = None

    def until_the_end(self) -> Launched:
        """Start the world, and start it again as often as is allowed and makes sense."""
        before: Ending | None = None
        with handling(self._note_signal), TemporaryDirectory(prefix="mpi-dcasgd-") as scratch:
            self._hostfile = Path(scratch, "hosts")
            for number in count(1):
                launched, ending = self._start()
                if not self._allowed or launched.status == 0:
                    return launched
                why = reason_to_stay(ending, before)
                if not why and number > self._allowed:
                    why = f"it was {self._allowed} times already (--restarts): {ending.cause}"
                try:
                    line = "" if why else self._prepare(ending, number)
                except UserError as error:
                    why = str(error)
                if launched.complaint:
                    _tell(launched.complaint)
                if why:
                    _tell(f"not started again: {why}")
                    return Launched(launched.status)
                _tell(f"restart {number} of {self._allowed} in {pause_s(number):g} s: {line}")
                if not self._pause(pause_s(number)):
                    return Launched(128 + (self._signum or 0))
                before = ending
        raise AssertionError  # not reached

    def _start(self) -> tuple[Launched, Ending]:
        """Start the world once; its end, for the caller and for the decision about another."""
        plan, run_dir = self._plan, self._folder.path
        end = RunEnd(run_dir)
        # Not kept for nothing: stderr goes through a pipe of ours for it.
        tail = Tail() if self._allowed else None
        without = self._without() if self._lost else None
        told = None if plan.sequential else run_dir
        ended = world.run_world(plan.command(run_dir, without), run_dir=told, tail=tail)
        status = end.exit_status(ended.status)
        complaint = ""
        # Open MPI 5.0.11 ends with 0 when it has lost a host, and at times after an abort.
        if status == 0 and not end.completed:
            status, reason = 1, end.reason
            complaint = (
                f"{run_dir} holds no finished run, although the launcher reports success"
                f"{f' ({reason})' if reason else ''}: see above, and {run_dir}/logs"
            )
        ending = Ending(
            status=status,
            world=ended,
            summary=end.summary,
            version=max(self._own_stamps(), default=None),
            reached=_size(self._folder.trace_bin) or _size(self._folder.metrics_jsonl),
            hosts=hosts_of(self._folder),
        )
        return Launched(status, complaint), ending

    def _own_stamps(self) -> dict[int, int]:
        """Checkpoints that this run can go on from, not those that it was told to ignore."""
        found = self._folder.checkpoint_stamps()
        ignored = self._before.items() - self._stamps.items()
        return dict(found.items() - ignored)

    def _prepare(self, ending: Ending, number: int) -> str:
        """Plan the next start, write it down, and return it in words."""
        plan = self._plan
        ranks = plan.ranks
        if new := [host for host in ending.lost if host not in self._lost]:
            self._lost += new
            left = [host for host in ending.hosts if not is_one_of(host, self._lost)]
            ranks = len(left) or ranks
            self._ranks = Counter(left)
            check_ranks(plan.job, ranks)
        options = () if self._own_stamps() else self._first.options
        self._plan = replace(plan, ranks=ranks, options=options)
        if not plan.sequential:
            self._plan.command(self._folder.path, self._without() if self._lost else None)
        restart = as_restart(number, self._allowed, ending, ranks, self._lost)
        self._notes.append(restart)
        try:
            write_restarts(self._folder.restarts_jsonl, self._notes)
        except OSError as error:
            _tell(f"{self._folder.restarts_jsonl}: cannot be written: {error.strerror}")
        fewer = f" with {ranks} ranks in place of {plan.ranks}" if ranks != plan.ranks else ""
        without = f", without {', '.join(self._lost)}" if self._lost else ""
        return f"{restart.cause}; {restart.whence}{fewer}{without}"

    def _without(self) -> Without:
        return Without(tuple(self._lost), self._ranks, self._hostfile)

    def _note_signal(self, signum: int, frame: FrameType | None) -> None:
        self._signum = signum

    def _pause(self, seconds: float) -> bool:
        """Wait; return whether nobody has asked for a stop meanwhile."""
        deadline = time.monotonic() + seconds
        while self._signum is None and (left_s := deadline - time.monotonic()) > 0:
            time.sleep(min(left_s, _LOOK_S))
        return self._signum is None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _new_folder(job: Job) -> Path:
    now = datetime.now().astimezone()
    return RunFolder.create(None, name=job.name, algorithm=job.algorithm, now=now).path
