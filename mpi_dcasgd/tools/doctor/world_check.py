"""Start ranks as a run would, and measure how fast messages travel between them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.shell import shell_words
from mpi_dcasgd.tools.doctor.ask import Answer, ask
from mpi_dcasgd.tools.doctor.finding import Finding, fail, ok, warn
from mpi_dcasgd.tools.doctor.machine_checks import size
from mpi_dcasgd.tools.launch.world import plan, refuse_place
from mpi_dcasgd.wording import counted

_LIMIT_S, _LIMIT_OF_A_RANK_S = 30.0, 1.0


def check_world(
    ranks: int,
    *,
    launcher: str | None = None,
    mpirun: str | None = None,
    arguments: str = "",
) -> Finding:
    """Start so many ranks, and time messages between the first and each of the others.

    Args:
        ranks: How many.
        launcher: As for `tools.launch.world.plan`; so is ``mpirun``.
        mpirun: Which one.
        arguments: More arguments for it, as one word.
    """
    extra = shell_words(arguments, "--mpirun-args")
    program = [sys.executable, "-m", "mpi_dcasgd.tools.doctor.rank"]
    try:
        refuse_place(launcher, mpirun, extra)
        command = plan(ranks, program, launcher=launcher, mpirun=mpirun, extra=extra)
    except LaunchError as error:
        return fail(world_name(ranks), f"cannot be started: {error}", "mpi-dcasgd doctor")
    limit_s = _LIMIT_S + ranks * _LIMIT_OF_A_RANK_S
    answer = ask(command.argv, limit_s, {**os.environ, **command.env})
    return judge_world(ranks, answer, by_srun=Path(command.argv[0]).name == "srun")


def judge_world(ranks: int, answer: Answer, *, by_srun: bool = False) -> Finding:
    """Say what the ranks have found; ``by_srun`` says who has started them."""
    name, facts, who = world_name(ranks), answer.facts, counted(ranks, "rank")
    try_it = f"mpi-dcasgd doctor --ranks {ranks} --mpirun PATH"
    if facts.get("ranks", ranks) != ranks:
        seen = f"each of {who} sees a world of {facts['ranks']}: not the mpirun of this MPI"
        if by_srun:
            seen = f"each of {who} that srun started sees a world of {facts['ranks']}"
            fix = "srun --mpi=list  (export MPI_DCASGD_SRUN_ARGS=--mpi=..., or --launcher mpirun)"
            return fail(name, f"{seen}: it does not speak to this MPI", fix)
        return fail(name, seen, f"{try_it}  (the mpirun of mpi4py's MPI)")
    if answer.trouble or "hosts" not in facts:
        why = answer.trouble or "the ranks have said nothing"
        fix = f'{try_it}, or --mpirun-args="--mca pml ob1 --mca btl tcp,self"  (plain TCP)'
        return fail(name, f"{why}", fix)
    times = {int(bytes_): span for bytes_, span in facts["round_s"].items()}
    shown = [_rate(bytes_, *span) for bytes_, span in sorted(times.items())]
    hosts = len(facts["hosts"])
    seen = "; ".join([f"started on {counted(hosts, 'host')}", *shown])
    small = min(times, default=0)
    if times and times[small][1] > 0.01:
        fix = "mpi-dcasgd run --mpirun-args='--mca btl_base_verbose 30' ...  (shows which network)"
        return warn(name, f"{seen}: slow; more ranks than cores, or the wrong network?", fix)
    return ok(name, seen)


def world_name(ranks: int) -> str:
    """Return the name of the check that starts so many ranks."""
    return counted(ranks, "rank")


def _rate(bytes_: int, least_s: float, most_s: float) -> str:
    if bytes_ < 1024:
        slow, fast = 1 / most_s, 1 / least_s
        return f"{slow:,.0f}{_to(slow, fast, ',.0f')} round trips a second of {bytes_} bytes"
    slow, fast = 2 * bytes_ / most_s / 1e9, 2 * bytes_ / least_s / 1e9
    return f"{slow:.2f}{_to(slow, fast, '.2f')} GB/s with {size(bytes_)}"


def _to(slow: float, fast: float, form: str) -> str:
    low, high = format(slow, form), format(fast, form)
    return "" if low == high else f" to {high}"
