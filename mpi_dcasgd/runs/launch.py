"""Start the world of a job with mpirun or srun, and wait for it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from mpi_dcasgd.config.needs import available_bytes
from mpi_dcasgd.config.plan import check_memory, check_ranks, plan_job
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.fault_settings import check_respawn
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.jobs import load_job
from mpi_dcasgd.runs.launch_plan import Launcher, LaunchPlan
from mpi_dcasgd.tools.launch import world
from mpi_dcasgd.tools.launch.srun import allocated_tasks
from mpi_dcasgd.tools.launch.starts import Launched, Starts


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
    survives = launcher is not None and launcher.fault_tolerant
    check_respawn(job.faults, job.mode, fault_tolerant=survives)
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
        return Starts(plan, run_dir, restarts).until_the_end()
    finally:
        if not plan.run_dir:
            with suppress(OSError):  # it holds a run
                run_dir.rmdir()


def _new_folder(job: Job) -> Path:
    now = datetime.now().astimezone()
    return RunFolder.create(None, name=job.name, algorithm=job.algorithm, now=now).path
