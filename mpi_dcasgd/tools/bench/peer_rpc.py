"""One process of a parameter server over torch.distributed.rpc.

As in PyTorch's tutorials on parameter servers with its RPC framework: workers call a function of
the server with their gradient by ``rpc_sync``, under a lock, and get the new weights back.

Started as ``python -m mpi_dcasgd.tools.bench.peer_rpc JSON RANK``; rank 0 serves, says when workers
begin, and prints a JSON list of rates.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

import torch
import torch.distributed.rpc as rpc
from torch import Tensor

from mpi_dcasgd.drivers.topology import Topology
from mpi_dcasgd.tools.bench.peer_update import PlainServer, rate_of

_SERVER = "server"
_TIMEOUT_S = 600

_lock = threading.Lock()
_server: PlainServer | None = None


def push_and_pull(worker: int, grad: Tensor) -> Tensor:
    """Update the weights of this process, which serves, and return them."""
    with _lock:
        if _server is None:
            raise RuntimeError("this process does not serve")
        return _server.push_and_pull(worker, grad)


def work(worker: int, size: int, rounds: int) -> None:
    """Push the same gradient so many times, and wait for the weights each time."""
    grad = torch.full((size,), 1e-3)
    for _ in range(rounds):
        rpc.rpc_sync(_SERVER, push_and_pull, args=(worker, grad), timeout=_TIMEOUT_S)


def _serve(workers: int, sizes: list[int]) -> list[float]:
    global _server
    rates = []
    for size in sizes:
        _server = PlainServer(size, workers)

        def run(rounds: int, size: int = size) -> None:
            begun = [
                rpc.rpc_async(
                    f"worker{worker}", work, args=(worker, size, rounds), timeout=_TIMEOUT_S
                )
                for worker in range(workers)
            ]
            torch.futures.wait_all(begun)

        rates.append(rate_of(run, workers))
    return rates


def main(spec: dict[str, Any], rank: int) -> None:
    """Serve, or be a worker until the server has ended."""
    options = rpc.TensorPipeRpcBackendOptions(
        init_method=f"tcp://127.0.0.1:{spec['port']}", rpc_timeout=_TIMEOUT_S
    )
    world = Topology("asynchronous", spec["workers"])
    worker = world.worker_of(rank)
    name = _SERVER if worker is None else f"worker{worker}"
    rpc.init_rpc(  # type: ignore[no-untyped-call]
        name, rank=rank, world_size=world.world_size, rpc_backend_options=options
    )
    rates = _serve(spec["workers"], spec["sizes"]) if worker is None else []
    rpc.shutdown()
    if worker is None:
        print(json.dumps(rates))


if __name__ == "__main__":
    # Functions travel by name: those of __main__ would be looked for in the other's __main__.
    from mpi_dcasgd.tools.bench import peer_rpc

    peer_rpc.main(json.loads(sys.argv[1]), int(sys.argv[2]))
