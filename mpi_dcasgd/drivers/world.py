"""What the launcher says about the world, read before MPI is (and without importing mpi4py).

A launcher and an MPI library that do not speak the same protocol fail silently: ``srun
--mpi=pmi2`` with Open MPI 5, or MPICH's ``mpirun`` with an mpi4py that runs on Open MPI, start N
processes of which each believes to be alone. Every one of them would train, and write, by itself.
The launcher's environment variables tell such a world from one process that was meant to be one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from mpi_dcasgd.errors import LaunchError

if TYPE_CHECKING:
    from mpi4py import MPI

DeviceChoice = Literal["auto", "cpu", "cuda"]


class _Protocol(NamedTuple):
    """The variables by which one kind of launcher tells a process its place, all of them set."""

    launcher: str
    names: tuple[str, str, str]  # of the world's size, this rank, and its number on its host
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
    """A process's place in the world that its launcher meant.

    Attributes:
        launcher: Its name in messages, or None when nothing started this process as one of a
            world; the numbers are then those of a process on its own.
        size: Processes that were started together.
        rank: This one's number among them.
        local_rank: Its number among those on this host.
        remedy: What to do when MPI's world is another.
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
    """Refuse a world of size 1 whose launcher started more.

    Other differences are no error: the launcher may have started this process for another
    purpose, as SLURM starts mpirun's daemons.

    Args:
        size: Of MPI's world communicator.
        env: The process's environment.
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


def host_ranks(comm: MPI.Comm) -> tuple[int, int]:
    """This rank's number on its host and the ranks on that host; all ranks must call it."""
    from mpi4py import MPI

    shared = comm.Split_type(MPI.COMM_TYPE_SHARED)
    rank, size = shared.Get_rank(), shared.Get_size()
    shared.Free()
    found = comm.allgather((size, MPI.Get_processor_name()))
    if any(size > 1 for size, _ in found):
        return rank, size
    # Started by srun (seen with SLURM 22.05's PMIx), Open MPI 5 may know of no rank beside it: all
    # workers of a host would then take its first GPU.
    same = [other for other, (_, name) in enumerate(found) if name == found[comm.Get_rank()][1]]
    return same.index(comm.Get_rank()), len(same)


def pick_device(choice: DeviceChoice, local_rank: int) -> torch.device:
    """The device a rank computes on: its number on its host modulo the GPUs that it sees.

    Modulo, because sites differ: some show every rank all of a node's GPUs, some one each; and
    several workers may share one.

    Args:
        choice: ``auto`` is a GPU where there is one.
        local_rank: The rank's number on its host.

    Raises:
        LaunchError: A GPU is asked for and this process sees none.
    """
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
    if torch.version.cuda is None and torch.version.hip is None:
        return f"PyTorch {torch.__version__} is built without CUDA"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "CUDA_VISIBLE_DEVICES is " + ("not set" if visible is None else f"'{visible}'")
