"""Sums of vectors over all ranks, by Horovod or by torch.distributed."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from mpi_dcasgd.drivers.backoff import wait_until
from mpi_dcasgd.drivers.sync_settings import Backend, Compression
from mpi_dcasgd.errors import LaunchError

if TYPE_CHECKING:
    from mpi4py import MPI

DTYPES: dict[str, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Reducer(Protocol):
    """Backend that sums over the ranks of a synchronous run.

    Attributes:
        name: Name of the backend.
        rank, size: This process's rank, and the number of ranks.
        in_background: Whether ``start`` returns while the sum is still being computed.
    """

    name: str
    rank: int
    size: int
    in_background: bool

    def start(self, tensor: Tensor, name: str) -> Callable[[], None]:
        """Start to replace ``tensor`` by its sum over all ranks.

        Returns:
            A function that waits for the sum.
        """

    def close(self) -> None:
        """Shut the backend down, while MPI is still initialised."""


class HorovodReducer:
    """Reducer that uses ``horovod.torch`` on an MPI communicator.

    Args:
        comm: Communicator of the ranks.
        device: Device of this rank's gradients.

    Raises:
        LaunchError: Horovod cannot be imported or has no MPI, or MPI does not support threads.
    """

    name = "horovod"

    def __init__(self, comm: MPI.Comm, device: torch.device) -> None:
        self._hvd = _import_horovod()
        self._hvd.init(comm=comm)
        if not self._hvd.mpi_threads_supported():
            raise LaunchError(
                "Horovod reports that this MPI does not support MPI_THREAD_MULTIPLE, which it "
                "needs; use an MPI that does, or sync.backend=ddp."
            )
        self.rank: int = self._hvd.rank()
        self.size: int = self._hvd.size()
        # Built without GPU operations, Horovod refuses a tensor that is on a GPU.
        self.in_background = device.type == "cpu" or bool(self._hvd.cuda_built())

    def start(self, tensor: Tensor, name: str) -> Callable[[], None]:
        staged = tensor if self.in_background else tensor.cpu()
        handle = self._hvd.allreduce_async_(staged, op=self._hvd.Sum, name=name)

        def wait() -> None:
            # Not within Horovod, so that signals and other threads have their turn meanwhile.
            wait_until(lambda: bool(self._hvd.poll(handle)))
            self._hvd.synchronize(handle)
            if staged is not tensor:
                tensor.copy_(staged)

        return wait

    def close(self) -> None:
        self._hvd.shutdown()


class DistributedReducer:
    """Reducer that uses ``torch.distributed``, set up over MPI.

    It uses NCCL if every rank of a host has a GPU of its own, otherwise gloo, since NCCL does not
    accept two ranks on one GPU.

    Args:
        comm: Communicator of the ranks; rank 0's host must be reachable from all others.
        device: Device of this rank's gradients.
    """

    name = "ddp"
    in_background = True

    def __init__(self, comm: MPI.Comm, device: torch.device) -> None:
        import torch.distributed as dist
        from torch._C._distributed_c10d import TCPStore

        self._dist = dist
        self.rank, self.size = comm.rank, comm.size
        places = comm.allgather((socket.gethostname(), str(device)))
        apart = len(set(places)) == len(places)
        backend = "nccl" if device.type == "cuda" and apart and dist.is_nccl_available() else "gloo"
        # MASTER_ADDR is for sites whose fast network has a host name of its own.
        mine = os.environ.get("MASTER_ADDR") or _address(one_host=len({p[0] for p in places}) == 1)
        address = comm.bcast(mine)
        port = None
        if comm.rank == 0:
            # Port 0: the system finds a free one, so that jobs on one node do not collide.
            self._store = TCPStore(address, 0, comm.size, is_master=True, wait_for_workers=False)
            port = self._store.port
        port = comm.bcast(port)
        if comm.rank != 0:
            self._store = TCPStore(address, port, comm.size, is_master=False)
        dist.init_process_group(backend, store=self._store, rank=comm.rank, world_size=comm.size)

    def start(self, tensor: Tensor, name: str) -> Callable[[], None]:
        work = self._dist.all_reduce(tensor, async_op=True)

        def wait() -> None:
            work.wait()

        return wait

    def close(self) -> None:
        self._dist.destroy_process_group()


def make_reducer(
    backend: Backend, compression: Compression, comm: MPI.Comm, device: torch.device
) -> Reducer:
    """Return the reducer that a job asks for.

    Args:
        backend: The job's ``sync.backend``.
        compression: The job's ``sync.compression``.
        comm: Communicator of the ranks; all of them must call this.
        device: Device of this rank's gradients.

    Raises:
        LaunchError: It is not available here, or cannot compress so.
    """
    if backend == "ddp":
        return DistributedReducer(comm, device)
    if compression == "bf16":
        raise LaunchError(
            "sync.compression bf16: Horovod sums no bfloat16 tensors; set fp16, or sync.backend=ddp"
        )
    return HorovodReducer(comm, device)


def _import_horovod() -> ModuleType:
    remedy = (
        "Build it against this PyTorch and MPI with `python -m mpi_dcasgd.tools.build_horovod`, "
        "or set sync.backend=ddp, which needs only PyTorch."
    )
    try:
        import horovod.torch as hvd
    except Exception as error:  # an ABI mismatch can surface as almost anything
        raise LaunchError(
            f"algorithm ssgd needs Horovod, which cannot be imported ({error}). {remedy}"
        ) from error
    if not hvd.mpi_built():
        raise LaunchError(f"this Horovod was built without MPI. {remedy}")
    return hvd  # type: ignore[no-any-return]  # Horovod has no type information


def _address(*, one_host: bool) -> str:
    # A laptop's own name often leads nowhere.
    return "127.0.0.1" if one_host else socket.gethostname()
