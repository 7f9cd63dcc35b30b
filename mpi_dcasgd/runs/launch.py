"""Start the world of a job with mpirun or srun, and wait for it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mpi_dcasgd.config.plan import available_bytes, check_memory, check_ranks, plan_job
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.fault_settings import check_respawn
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.jobs import load_job
from mpi_dcasgd.tools.launch import world
from mpi_dcasgd.tools.launch.exit_status import RunEnd
from mpi_dcasgd.tools.launch.mpirun import MpirunCommand
from mpi_dcasgd.tools.launch.srun import allocated_tasks


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
        words: What the ranks are told beside the file and ``--run-dir``.
        run_dir: The run folder that was asked for.
        launcher: Who starts them.
    """

    job: Job
    file: Path
    ranks: int
    words: tuple[str, ...]
    run_dir: Path | None
    launcher: Launcher

    @property
    def sequential(self) -> bool:
        """True if the run is one process, which needs no launcher."""
        return self.job.mode == "sequential"

    def command(self, run_dir: Path | None = None) -> MpirunCommand:
        """The command that starts the world.

        Raises:
            LaunchError: There is no launcher.
        """
        where = run_dir or self.run_dir
        options = ["--run-dir", str(where)] if where else []
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
    check_respawn(job.faults, launcher is not None and launcher.fault_tolerant)
    options = ["--overwrite"] if overwrite else []
    options += ["--resume", resume] if resume is not None else []
    return LaunchPlan(job, file, ranks, (*words, *options), run_dir, launcher or Launcher())


def launch(plan: LaunchPlan) -> Launched:
    """Start a world and wait for its end; its output goes where this process's goes.

    Raises:
        ConfigError: The job needs more memory than there is.
        LaunchError: There is no launcher, or this is no place to start ranks in.
        RunFolderError: The run folder cannot be made.
    """
    # Rank 0, which needs the most, is started where mpirun is, unless a host file says otherwise.
    check_memory(plan_job(plan.job, plan.ranks), available_bytes(), str(plan.file))
    if plan.sequential:
        return Launched(world.run(plan.command()))
    world.refuse_place(plan.launcher.name, plan.launcher.mpirun, plan.launcher.arguments)
    # The ranks' end is told in there, whatever their launcher makes of it.
    run_dir = plan.run_dir or _new_folder(plan.job)
    end = RunEnd(run_dir)
    try:
        status = world.run(plan.command(run_dir), run_dir=run_dir)
    finally:
        if not plan.run_dir:
            with suppress(OSError):  # it holds a run
                run_dir.rmdir()
    status = end.exit_status(status)
    # Open MPI 5.0.11 ends with status 0 when it has lost a host, and at times after an abort.
    if status == 0 and not end.completed:
        return Launched(
            1,
            f"{run_dir} holds no finished run, although the launcher reports success: "
            f"see above, and {run_dir}/logs",
        )
    return Launched(status)


def _new_folder(job: Job) -> Path:
    now = datetime.now().astimezone()
    return RunFolder.create(None, name=job.name, algorithm=job.algorithm, now=now).path
