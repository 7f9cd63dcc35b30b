"""Sums of vectors over all ranks, by Horovod or by torch.distributed."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from mpi_dcasgd.drivers.backoff import wait_until
from mpi_dcasgd.drivers.collective import collectively
from mpi_dcasgd.drivers.meeting import Meeting, Ranks
from mpi_dcasgd.drivers.startup import together
from mpi_dcasgd.drivers.sync_settings import Backend, Compression
from mpi_dcasgd.errors import LaunchError

if TYPE_CHECKING:
    from mpi4py import MPI

TITLES = {"ddp": "torch.distributed", "horovod": "Horovod"}
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
        device: Device of this rank's gradients.

    Raises:
        LaunchError: Horovod cannot be imported or has no MPI.
    """

    name = "horovod"

    def __init__(self, device: torch.device) -> None:
        self._hvd = _import_horovod()
        # Built without GPU operations, Horovod refuses a tensor that is on a GPU.
        self.in_background = device.type == "cpu" or bool(self._hvd.cuda_built())
        self.rank, self.size = 0, 1

    def join(self, comm: MPI.Comm) -> None:
        """Meet all ranks of a communicator, which blocks until they have come."""
        self._hvd.init(comm=comm)
        self.rank, self.size = self._hvd.rank(), self._hvd.size()

    def check(self) -> None:
        """Refuse an MPI that does not support threads; after `join`.

        Raises:
            LaunchError: It does not.
        """
        if not self._hvd.mpi_threads_supported():
            raise LaunchError(
                "Horovod reports that this MPI does not support MPI_THREAD_MULTIPLE, which it "
                "needs; use an MPI that does, or sync.backend=ddp."
            )

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
        ranks: Rank 0's host must be reachable from all others.
        device: Device of this rank's gradients.
    """

    name = "ddp"
    in_background = True

    def __init__(self, ranks: Ranks, device: torch.device) -> None:
        import torch.distributed as dist
        from torch._C._distributed_c10d import TCPStore

        self._dist = dist
        self.rank, self.size = ranks.rank, ranks.size
        places = ranks.allgather((socket.gethostname(), str(device)))
        apart = device.type == "cuda" and len(set(places)) == len(places)
        self._backend = "nccl" if apart and dist.is_nccl_available() else "gloo"
        # MASTER_ADDR is for sites whose fast network has a host name of its own.
        one_host = len({host for host, _ in places}) == 1
        mine = os.environ.get("MASTER_ADDR") or _address(one_host=one_host)
        self._address, self._port = ranks.bcast(mine), 0
        if not one_host:
            together(ranks, lambda: check_names(self._address, self._backend))
        if self.rank == 0:
            # Port 0: the system finds a free one, so that jobs on one node do not collide.
            self._store = TCPStore(
                "127.0.0.1", 0, self.size, is_master=True, wait_for_workers=False
            )
            self._port = self._store.port
        self._port = ranks.bcast(self._port)

    def join(self) -> None:
        """Meet all ranks, which blocks until they have come."""
        from torch._C._distributed_c10d import TCPStore

        if self.rank != 0:
            self._store = TCPStore(self._address, self._port, self.size, is_master=False)
        self._dist.init_process_group(
            self._backend, store=self._store, rank=self.rank, world_size=self.size
        )

    def start(self, tensor: Tensor, name: str) -> Callable[[], None]:
        work = self._dist.all_reduce(tensor, async_op=True)

        def wait() -> None:
            work.wait()

        return wait

    def close(self) -> None:
        self._dist.destroy_process_group()


def make_reducer(
    backend: Backend, compression: Compression, meeting: Meeting, device: torch.device
) -> Reducer:
    """Return the reducer that a job asks for; all ranks must call this.

    Args:
        backend: The job's ``sync.backend``.
        compression: The job's ``sync.compression``.
        meeting: Of the ranks.
        device: Device of this rank's gradients.

    Raises:
        LaunchError: It is not available here, or cannot compress so.
        RanksLostError: A rank died, hangs or failed while they met.
    """
    before, meeting.doing = meeting.doing, f"setting up {TITLES[backend]}"
    if backend == "ddp":
        distributed = DistributedReducer(meeting, device)
        collectively(meeting, distributed.join)
        meeting.doing = before
        return distributed
    horovod = together(meeting, lambda: _horovod(compression, device))
    if _threads_allowed():
        collectively(meeting, lambda: horovod.join(meeting.comm))
    else:  # which Horovod will refuse
        horovod.join(meeting.comm)
    together(meeting, horovod.check)
    meeting.doing = before
    return horovod


def _threads_allowed() -> bool:
    from mpi4py import MPI

    return MPI.Query_thread() == MPI.THREAD_MULTIPLE  # or a caller has started MPI otherwise


def _horovod(compression: Compression, device: torch.device) -> HorovodReducer:
    if compression == "bf16":
        raise LaunchError(
            "sync.compression bf16: Horovod sums no bfloat16 tensors; set fp16, or sync.backend=ddp"
        )
    return HorovodReducer(device)


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


def check_names(address: str, backend: str) -> None:
    """Refuse host names that lead nowhere: torch.distributed would try them for minutes.

    Args:
        address: Of rank 0's host, which all ranks connect to.
        backend: Of torch.distributed. Gloo waits for others where this host's own name leads.

    Raises:
        LaunchError: They do.
    """
    problem, own = "", socket.gethostname()
    if not _addresses(address):
        problem = f"cannot resolve {address}, where rank 0 is; set MASTER_ADDR to its address"
    elif backend == "gloo" and not os.environ.get("GLOO_SOCKET_IFNAME"):
        found = _addresses(own)
        if not found:
            problem = f"cannot resolve its own name, {own}"
        elif all(ipaddress.ip_address(each).is_loopback for each in found):
            problem = (
                f"resolves its own name, {own}, to {', '.join(sorted(found))}, where no other "
            )
            problem += "host can reach it"
        if problem:
            problem += "; set GLOO_SOCKET_IFNAME to the name of its network interface"
    if problem:
        raise LaunchError(f"sync.backend ddp: this host {problem}, or sync.backend=horovod")


def _addresses(name: str) -> set[str]:
    try:
        return {str(each[4][0]).partition("%")[0] for each in socket.getaddrinfo(name, None)}
    except OSError:
        return set()
