"""Ranks started by srun, where a site's MPI can be started in no other way."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Literal

from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.shell import shell_words
from mpi_dcasgd.tools.launch.mpirun import MpirunCommand, available_slots, find_mpirun
from mpi_dcasgd.wording import counted

Launcher = Literal["mpirun", "srun"]

LAUNCHER_VARIABLE = "MPI_DCASGD_LAUNCHER"
SRUN_VARIABLE = "MPI_DCASGD_SRUN_ARGS"
MPIRUN_VARIABLE = "MPI_DCASGD_MPIRUN_ARGS"


def pick_launcher(
    choice: str | None = None, mpirun: str | None = None, env: Mapping[str, str] = os.environ
) -> Launcher:
    """Choose the launcher: the one named, else the variable's, else whatever is installed.

    In a SLURM allocation an mpirun comes first, if there is one: Open MPI's are made for it, and
    an srun that does not speak the MPI's protocol starts N worlds of one rank.

    Args:
        choice: ``auto``, ``mpirun``, ``srun``; None for the variable MPI_DCASGD_LAUNCHER.
        mpirun: The mpirun that the user named.
        env: The environment.

    Raises:
        LaunchError: The variable names none of them, or srun is to start ranks outside of an
            allocation.
    """
    wanted = choice or env.get(LAUNCHER_VARIABLE) or "auto"
    if wanted not in ("auto", "mpirun", "srun"):
        raise LaunchError(f"{LAUNCHER_VARIABLE} is {wanted!r}; allowed: auto, mpirun, srun")
    if wanted == "srun":
        if "SLURM_JOB_ID" not in env:
            raise LaunchError(
                "launcher srun: there is no SLURM allocation here; start it in a batch script or "
                "after salloc, or choose --launcher mpirun"
            )
        return "srun"
    if wanted == "auto" and mpirun is None and "SLURM_JOB_ID" in env:
        try:
            find_mpirun(None, env)
        except LaunchError:
            if shutil.which("srun", path=env.get("PATH", os.defpath)):
                return "srun"
    return "mpirun"


def srun_command(
    n: int,
    program: Sequence[str],
    *,
    extra: Sequence[str] = (),
    env: Mapping[str, str] = os.environ,
) -> MpirunCommand:
    """The command that starts ``n`` ranks of a program as one step of the allocation.

    Args:
        n: Ranks, the server included.
        program: What each executes.
        extra: Further arguments for srun, after those of the variable MPI_DCASGD_SRUN_ARGS.
        env: The environment.

    Raises:
        LaunchError: There is no srun, or there are more ranks than tasks.
    """
    srun = shutil.which("srun", path=env.get("PATH", os.defpath))
    if not srun:
        raise LaunchError("found no srun on PATH; choose --launcher mpirun")
    tasks = allocated_tasks(env)
    if tasks is not None and n > tasks:
        raise LaunchError(
            f"-n {n}: the allocation has {counted(tasks, 'task')}, and srun starts no more than "
            "that; ask for more (--ntasks, or --nodes and --ntasks-per-node), or start fewer ranks"
        )
    words = [srun, "-n", str(n), "--kill-on-bad-exit=1"]
    # Since SLURM 22.05 a step does not inherit it, and would pin all of a rank's threads to a core.
    if cpus := env.get("SLURM_CPUS_PER_TASK"):
        words.append(f"--cpus-per-task={cpus}")
    words += shell_words(env.get(SRUN_VARIABLE, ""), SRUN_VARIABLE)
    return MpirunCommand((*words, *extra, *program))


def allocated_tasks(env: Mapping[str, str] = os.environ) -> int | None:
    """Tasks of the SLURM allocation that this process is in, or None outside of one."""
    if "SLURM_JOB_ID" not in env:
        return None
    ntasks = env.get("SLURM_NTASKS", "")
    return int(ntasks) if ntasks.isdecimal() else available_slots(env)
