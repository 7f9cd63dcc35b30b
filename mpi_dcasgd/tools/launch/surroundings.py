"""Places in which ranks cannot be started: within another launcher, or in what is left of a job."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from mpi_dcasgd.drivers.world import Launch
from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.tools.slurm.states import job_states

_PATIENCE_S = 5.0
_SPECIAL_STEPS = 0xFFFFFFF0  # batch, interactive, extern: these take nothing from other steps
_OVER = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
)
_NEEDED = (
    ("SLURM_JOB_NODELIST", "SLURM_NODELIST"),
    ("SLURM_JOB_NUM_NODES", "SLURM_NNODES"),
    ("SLURM_TASKS_PER_NODE",),
)


def refuse_many(command: str, env: Mapping[str, str] = os.environ) -> bool:
    """Refuse a command that is to be started once in one of several processes of a launcher.

    Each of them would start a world, or train, in the same folder. One of them is enough to say so.

    Args:
        command: Its name.
        env: The environment.

    Returns:
        Whether to continue. False on all but the first of several processes, which are to end
        silently, and with status 0: a launcher ends them all when one fails, the one that speaks
        included.

    Raises:
        LaunchError: It was started several times, and this is the first process.
    """
    launch = Launch.of(env)
    if launch.size <= 1:
        return True
    if launch.rank > 0:
        return False
    where = f"{launch.launcher} has started {launch.size} processes here, and this is one of them"
    advice = (
        "in a shell of `srun --pty` use `salloc` instead"
        if launch.launcher == "srun"
        else f"start it without {launch.launcher}"
    )
    ranks = ", or start the ranks yourself, with `mpi-dcasgd train`" if command == "run" else ""
    raise LaunchError(f"mpi-dcasgd {command} is to be started once: {where}; {advice}{ranks}")


def refuse_leftovers(
    launcher: str, arguments: Sequence[str] = (), env: Mapping[str, str] = os.environ
) -> None:
    """Refuse to start ranks where the launcher would hang, or only print a banner.

    Args:
        launcher: ``mpirun`` or ``srun``.
        arguments: Those that it is to have.
        env: The environment.

    Raises:
        LaunchError: SLURM's variables are of no allocation that is there, or this is a step of one,
            which has its resources.
    """
    job = env.get("SLURM_JOB_ID")
    if job is None:
        return
    drop = "; outside of an allocation remove what is left of one: unset ${!SLURM_@}"
    missing = [names[0] for names in _NEEDED if not any(env.get(name) for name in names)]
    if missing:
        raise LaunchError(
            f"SLURM_JOB_ID is {job}, but {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not set, so {launcher} does not know this "
            f"allocation{drop}"
        )
    nodes = env.get("SLURM_JOB_NUM_NODES") or env.get("SLURM_NNODES") or "1"
    if in_step(env) and (launcher == "srun" or nodes != "1") and "--overlap" not in arguments:
        raise LaunchError(
            f"this shell is a step of SLURM's job {job}, which holds the allocation: srun, with "
            "which ranks are started on its nodes, would wait for ever; use `salloc` in place of "
            "`srun --pty`, or a batch script"
        )
    _refuse_over(job, env, drop)


def _refuse_over(job: str, env: Mapping[str, str], drop: str) -> None:
    array, task = env.get("SLURM_ARRAY_JOB_ID"), env.get("SLURM_ARRAY_TASK_ID")
    name = f"{array}_{task}" if array and task else job
    answer = job_states([array or job], _PATIENCE_S)
    state = answer.states.get(name)
    if state is not None and state.state in _OVER:
        raise LaunchError(f"SLURM_JOB_ID is {job}, but that job is over ({state.state}){drop}")
    if not answer.states and not answer.silence:
        raise LaunchError(f"SLURM_JOB_ID is {job}, but SLURM knows no such job{drop}")


def in_step(env: Mapping[str, str]) -> bool:
    """Return whether a process is of a step that srun started, and not of a batch script."""
    step = env.get("SLURM_STEP_ID") or env.get("SLURM_STEPID") or ""
    return step.isdecimal() and int(step) < _SPECIAL_STEPS
