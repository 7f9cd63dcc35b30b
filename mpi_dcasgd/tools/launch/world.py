"""Start a world with mpirun or srun, and pass on signals and the exit status.

The work behind ``mpi-dcasgd run -n 5 JOB``. Nothing here is needed to start a world: the command
that is shown does the same when typed, and on a cluster the site's own ``srun`` or ``mpirun`` line
is as good.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from mpi_dcasgd.drivers.signals import ASKED_VARIABLE
from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.record.progress import TTY_VARIABLE
from mpi_dcasgd.shell import shell_words
from mpi_dcasgd.stop_signals import signal_name
from mpi_dcasgd.tools.launch.exit_status import RunEnd
from mpi_dcasgd.tools.launch.hosts import Without, keepalive, leave_out
from mpi_dcasgd.tools.launch.leftovers import MARK, Server, end_leftovers
from mpi_dcasgd.tools.launch.lingering import wait_for
from mpi_dcasgd.tools.launch.mpirun import (
    MpiFlavour,
    MpirunCommand,
    available_slots,
    detect_flavour,
    find_mpirun,
    mpirun_command,
)
from mpi_dcasgd.tools.launch.relay import Tail, outliving_reader
from mpi_dcasgd.tools.launch.remains import remove_remains
from mpi_dcasgd.tools.launch.srun import (
    MPIRUN_VARIABLE,
    SRUN_VARIABLE,
    pick_launcher,
    srun_command,
)
from mpi_dcasgd.tools.launch.steering import Steering, handling
from mpi_dcasgd.tools.launch.surroundings import refuse_leftovers

_PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>


def rank_program(job: str, overrides: Sequence[str] = ()) -> list[str]:
    """Command of every rank: ``train``, with this Python."""
    return [sys.executable, "-m", "mpi_dcasgd", "train", job, *overrides]


def plan(
    n: int,
    program: Sequence[str],
    *,
    launcher: str | None = None,
    mpirun: str | None = None,
    fault_tolerant: bool = False,
    extra: Sequence[str] = (),
    terminal: bool = True,
    without: Without | None = None,
) -> MpirunCommand:
    """`mpirun_command` with what this machine says: its mpirun, its cores, its user, its terminal.

    Args:
        n: Ranks, the server included.
        program: What each executes.
        launcher: ``auto``, ``mpirun`` or ``srun``; see `pick_launcher`.
        mpirun: Which one; None for the usual.
        fault_tolerant: Let a world outlive a rank's death.
        extra: Further arguments for the launcher.
        terminal: Whether the ranks write to where this process does.
        without: Hosts on which mpirun is to start nothing.

    Raises:
        LaunchError: No launcher, or not one that can do what is asked.
    """
    if pick_launcher(launcher, mpirun) == "srun":
        if fault_tolerant:
            raise LaunchError(
                "srun ends all ranks when one dies; omit --fault-tolerant, or choose "
                "--launcher mpirun"
            )
        return srun_command(n, program, extra=extra)
    words = [*shell_words(os.environ.get(MPIRUN_VARIABLE, ""), MPIRUN_VARIABLE), *extra]
    if without:
        words = leave_out(words, without)
    columns = shutil.get_terminal_size().columns if terminal and sys.stdout.isatty() else None
    return mpirun_command(
        n,
        program,
        _flavour(find_mpirun(mpirun)),
        slots=available_slots(),
        root=os.geteuid() == 0,
        columns=columns,
        fault_tolerant=fault_tolerant,
        extra=words,
        variables=keepalive(words),
    )


def refuse_place(
    launcher: str | None = None, mpirun: str | None = None, extra: Sequence[str] = ()
) -> None:
    """Refuse to start ranks where their launcher would hang or only print a banner.

    Args:
        launcher: As for `plan`; so are the others.
        mpirun: Which one.
        extra: Further arguments.

    Raises:
        LaunchError: With the reason, and what to do.
    """
    chosen = pick_launcher(launcher, mpirun)
    words = shell_words(os.environ.get(SRUN_VARIABLE, ""), SRUN_VARIABLE)
    refuse_leftovers(chosen, [*words, *extra])


@dataclass(frozen=True)
class WorldEnd:
    """End of a world.

    Attributes:
        status: Its exit status, 128 + the signal's number where a signal ended it.
        asked_by: The signal by which this process was asked to stop it, if one came; it may have
            come too late.
        killed_by: The signal that ended the launcher itself, if one did.
        words: Last part of what it has printed on stderr, if that was kept.
        lost: Hosts for which the launcher waited when it was stopped.
    """

    status: int
    asked_by: int | None = None
    killed_by: int | None = None
    words: str = ""
    lost: tuple[str, ...] = ()


@cache
def _flavour(mpirun: str) -> MpiFlavour:
    return detect_flavour(mpirun)


def run(
    command: MpirunCommand,
    *,
    run_dir: Path | None = None,
    stdout: IO[bytes] | None = None,
    stderr: IO[bytes] | None = None,
) -> int:
    """Show the command, execute it and wait for it, passing signals on.

    SIGUSR1 and SIGUSR2 are passed on as they are; mpirun gives them to every rank. The first
    SIGINT, SIGTERM, SIGHUP or SIGXCPU becomes a SIGUSR1, which asks the ranks to stop at their next
    safe point, and its number is left in a file for those on this host. Open MPI's mpirun answers
    SIGINT and SIGTERM alike by killing its ranks within half a second, too soon to save anything.
    The second is passed on as SIGTERM and does just that.

    Args:
        command: From `plan`.
        run_dir: The run's folder. A launcher that stays behind after the end that it tells of is
            ended, and the status is then the run's.
        stdout: Where the ranks' output goes, if not where this process's does.
        stderr: Where the ranks' errors go, if not where this process's do.

    Returns:
        The exit status, 128 + the signal's number where a signal ended it.
    """
    return run_world(command, run_dir=run_dir, stdout=stdout, stderr=stderr).status


def run_world(
    command: MpirunCommand,
    *,
    run_dir: Path | None = None,
    stdout: IO[bytes] | None = None,
    stderr: IO[bytes] | None = None,
    tail: Tail | None = None,
) -> WorldEnd:
    """Do as `run` does, and tell more of the end.

    Args:
        command: As for `run`; so are the others.
        run_dir: The run's folder.
        stdout: Where the ranks' output goes.
        stderr: Where the ranks' errors go.
        tail: Keeps the last part of stderr, where that is not given.
    """
    print(f"+ {command}", file=sys.stderr, flush=True)
    # A launcher above this one may have had a terminal that these ranks have not.
    inherited = {name: value for name, value in os.environ.items() if name != TTY_VARIABLE}
    mark = secrets.token_hex(8)
    steering, begun_s = Steering(), time.time()
    end = RunEnd(run_dir) if run_dir else None
    with (
        steering.telling(mark),
        handling(steering.on_signal),
        outliving_reader(stdout, 1) as output,
        outliving_reader(stderr, 2, tail) as errors,
    ):
        world = subprocess.Popen(
            command.argv,
            env={**inherited, **command.env, MARK: mark, ASKED_VARIABLE: str(steering.told or "")},
            stdin=subprocess.DEVNULL,  # its own session has no terminal to read from
            stdout=output,
            stderr=errors,
            start_new_session=True,  # so that Ctrl-C reaches this process only
            preexec_fn=_die_with_parent(),
        )
        steering.begin(world)
        waited = wait_for(
            world, fault_tolerant=command.fault_tolerant, end=end, server=Server(mark)
        )
        status = waited.status
        if status < 0 and steering.signum is None:
            told = f"{command.argv[0]} was killed by {signal_name(-status)}"
            print(told, file=sys.stderr, flush=True)
        if killed := end_leftovers(mark, at_once=steering.insisted):
            print(f"killed what {command.argv[0]} had left behind: {killed}", file=sys.stderr)
        # Not only of one that was killed: told twice to end, as by the guards of two ranks, it
        # leaves them, too.
        remove_remains(world.pid, begun_s)
    return WorldEnd(
        steering.exit_status(status),
        asked_by=steering.signum,
        killed_by=-status if status < 0 else None,
        words=tail.text if tail else "",
        lost=waited.lost,
    )


def _die_with_parent() -> Callable[[], None]:
    """For the child: when this process is killed, its world must not train on unseen."""
    libc = ctypes.CDLL(None)  # found before the fork: little is safe after it

    def ask_kernel() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))

    return ask_kernel
