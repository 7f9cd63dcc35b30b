"""``mpi-dcasgd run``: check a job, then start its ranks."""

from __future__ import annotations

import argparse
import shlex
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from mpi_dcasgd.config.load import load_job
from mpi_dcasgd.config.plan import available_bytes, check_memory, check_ranks, plan_job
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.dry_run import show_job
from mpi_dcasgd.tools.launch import world as launch
from mpi_dcasgd.tools.launch.exit_status import interrupted_status
from mpi_dcasgd.tools.launch.mpirun import MpirunCommand
from mpi_dcasgd.tools.launch.srun import allocated_tasks


def run_job(args: argparse.Namespace) -> int:
    """Start the world that a job needs and wait for it.

    Returns:
        Its exit status.

    Raises:
        ConfigError: The job is wrong; nothing was started.
        LaunchError: The number of ranks is, or there is no mpirun.
    """
    job = load_job(args.job, args.overrides)
    sequential = job.mode == "sequential"
    ranks = check_ranks(job, args.ranks or (None if sequential else allocated_tasks()))
    if args.dry_run:
        show_job(job, ranks)
        print(f"\ncommand: {_command(args, job, ranks, args.run_dir)}")
        return 0
    # Rank 0, which needs the most, is started where mpirun is, unless a host file says otherwise.
    check_memory(plan_job(job, ranks), available_bytes(), str(args.job))
    if sequential:
        return launch.run(_command(args, job, ranks, args.run_dir))
    # The ranks' end is told in there, whatever their launcher makes of it.
    run_dir = args.run_dir or _new_folder(job)
    try:
        status = launch.run(_command(args, job, ranks, run_dir), run_dir=run_dir)
    finally:
        if not args.run_dir:
            with suppress(OSError):  # it holds a run
                run_dir.rmdir()
    status = interrupted_status(status, run_dir)
    # Open MPI 5.0.11 ends with status 0 when it has lost a host, and at times after an abort.
    if status == 0 and not RunFolder(run_dir).is_finished():
        print(
            f"{run_dir} holds no finished run, although the launcher reports success: "
            f"see above, and {run_dir}/logs",
            file=sys.stderr,
        )
        return 1
    return status


def _new_folder(job: Job) -> Path:
    now = datetime.now().astimezone()
    return RunFolder.create(None, name=job.name, algorithm=job.algorithm, now=now).path


def _command(args: argparse.Namespace, job: Job, ranks: int, run_dir: Path | None) -> MpirunCommand:
    options = ["--run-dir", str(run_dir)] if run_dir else []
    options += ["--overwrite"] if args.overwrite else []
    options += ["--resume", args.resume] if args.resume != "auto" else []
    program = launch.rank_program(str(args.job), [*args.overrides, *options])
    if job.mode == "sequential":
        return MpirunCommand(tuple(program))
    return launch.plan(
        ranks,
        program,
        launcher=args.launcher,
        mpirun=args.mpirun,
        fault_tolerant=args.fault_tolerant,
        extra=shlex.split(args.mpirun_args),
    )
