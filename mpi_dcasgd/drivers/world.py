"""The world as the launcher describes it, read before MPI starts and without importing mpi4py.

A launcher and an MPI library that do not speak the same protocol fail silently: ``srun
--mpi=pmi2`` with Open MPI 5, or MPICH's ``mpirun`` with an mpi4py that runs on Open MPI, start N
processes each of which believes it is alone. Each of them would train, and write, on its own.
The launcher's environment variables distinguish such a world from a single process.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from mpi_dcasgd.drivers.backoff import spin_s, usable_cores
from mpi_dcasgd.drivers.transport.place import Place
from mpi_dcasgd.errors import LaunchError

if TYPE_CHECKING:
    import torch

    from mpi_dcasgd.drivers.meeting import Ranks

DeviceChoice = Literal["auto", "cpu", "cuda"]


class _Protocol(NamedTuple):
    """Variables by which one kind of launcher tells a process its place; it sets all of them."""

    launcher: str
    names: tuple[str, str, str]  # world size, rank, and rank on the host
    remedy: str


_USE_ITS_OWN = (
    "start with the mpirun of the MPI that mpi4py runs on: `mpi-dcasgd run` takes the one beside "
    "this Python, `--mpirun PATH` another"
)

# From the most to the least telling, for one launcher's variables are seen through another.
# mpirun starts its daemons with srun, so its ranks inherit SLURM_STEP_NUM_TASKS = daemons; and
# srun's PMI-2 plug-in sets PMI_SIZE as MPICH's mpiexec does, but not MPI_LOCALRANKID.
# SLURM_NTASKS is what an allocation holds, not what was started, and is not looked at.
_PROTOCOLS = (
    _Protocol(
        "Open MPI's mpirun",
        ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
        _USE_ITS_OWN,
    ),
    _Protocol("MPICH's mpiexec", ("PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"), _USE_ITS_OWN),
    _Protocol(
        "srun",
        ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"),
        "tell srun which protocol the MPI speaks, `srun --mpi=pmix` for Open MPI (`srun "
        "--mpi=list` names those that this SLURM has), or use mpirun inside the allocation",
    ),
    _Protocol("Cray's mpiexec", ("PMI_SIZE", "PMI_RANK", "PMI_LOCAL_RANK"), _USE_ITS_OWN),
)


@dataclass(frozen=True)
class Launch:
    """Place of a process in the world that its launcher started.

    Attributes:
        launcher: Name of the launcher in messages, or None if this process was started alone;
            the numbers are then those of a single process.
        size: Number of processes that were started together.
        rank: Rank of this one.
        local_rank: Its rank among those on this host.
        remedy: Advice if MPI's world is a different one.
    """

    launcher: str | None = None
    size: int = 1
    rank: int = 0
    local_rank: int = 0
    remedy: str = ""

    @classmethod
    def of(cls, env: Mapping[str, str] = os.environ) -> Launch:
        """Read the launcher's variables; those that are not numbers are ignored."""
        for protocol in _PROTOCOLS:
            words = [env.get(name, "") for name in protocol.names]
            if all(word.isdecimal() for word in words):
                size, rank, local_rank = map(int, words)
                return cls(protocol.launcher, size, rank, local_rank, protocol.remedy)
        return cls()


def check_world(size: int, env: Mapping[str, str] = os.environ, *, library: str = "") -> None:
    """Refuse an MPI world of size 1 if the launcher started more processes.

    Other differences are no error: the launcher may have started this process for another
    purpose, as SLURM starts mpirun's daemons.

    Args:
        size: Size of MPI's world communicator.
        env: Environment of the process.
        library: The MPI library that mpi4py runs on, for the message
            (``MPI.Get_library_version()``).

    Raises:
        LaunchError: Each of several processes sees a world of its own.
    """
    launch = Launch.of(env)
    if size != 1 or launch.size <= 1:
        return
    name = library.partition("\n")[0].partition(",")[0]
    runs_on = f" ({' '.join(name.split())})" if name else ""
    raise LaunchError(
        f"{launch.launcher} started {launch.size} processes, but each sees an MPI world of its "
        f"own, of size 1: the launcher does not speak the protocol of mpi4py's MPI{runs_on}; "
        f"{launch.remedy}."
    )


def host_ranks(ranks: Ranks) -> tuple[int, int]:
    """Return this rank's number on its host and the number of ranks there; all ranks must call."""
    # Not MPI_Comm_split_type: it waits for ever for a rank that hangs. Nor does it always know:
    # started by srun (seen with SLURM 22.05's PMIx), Open MPI 5 may find no rank beside it, and all
    # workers of a host would then take its first GPU.
    found = ranks.allgather((*_host(), ranks.rank))
    *own, _ = found[ranks.rank]
    there = [rank for *host, rank in found if host == own]
    return there.index(ranks.rank), len(there)


def host_spin_s(ranks: Ranks) -> float:
    """Return the seconds that waits of this rank should poll without sleeping; all ranks must call.

    Ranks that a launcher has bound to a core each have one of their own, though each sees one only.
    """
    cores, granted = usable_cores()
    own = _host()
    there = [cores for other, cores in ranks.allgather((own, cores)) if other == own]
    return spin_s(len(there), min(granted, len(frozenset().union(*there))))


def _host() -> tuple[str, str]:
    """Return the name of this host, and what tells it from another of that name."""
    place = Place.here()
    return place.host, place.kernel


def pick_device(choice: DeviceChoice, local_rank: int) -> torch.device:
    """Return the device for a rank: GPU number ``local_rank`` modulo the visible GPUs, or the CPU.

    Modulo, because sites differ: some show every rank all of a node's GPUs, some one each; and
    several workers may share one.

    Args:
        choice: ``cpu``, ``cuda``, or ``auto`` for a GPU if there is one.
        local_rank: The rank's number on its host.

    Raises:
        LaunchError: A GPU is asked for and this process sees none.
    """
    import torch  # not before: commands that start processes have no need of it

    if choice == "cpu":
        return torch.device("cpu")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus:
        return torch.device("cuda", local_rank % gpus)
    if choice == "auto":
        return torch.device("cpu")
    raise LaunchError(
        f"device cuda: {socket.gethostname()}, local rank {local_rank}, sees no GPU "
        f"({_why_no_gpu()}); ask the scheduler for GPUs, or set the device to cpu or auto."
    )


def _why_no_gpu() -> str:
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return f"PyTorch {torch.__version__} is built without CUDA"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "CUDA_VISIBLE_DEVICES is " + ("not set" if visible is None else f"'{visible}'")
