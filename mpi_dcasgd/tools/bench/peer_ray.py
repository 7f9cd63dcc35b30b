"""A parameter server as a Ray actor.

As in Ray's example of an asynchronous parameter server: the driver waits for whichever worker's
gradient is there first, hands it to the server's actor, and the worker its new weights. Arrays
travel through Ray's object store.

Started as ``python -m mpi_dcasgd.tools.bench.peer_ray JSON``; prints a JSON list of rates.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_dcasgd.drivers.topology import Topology
from mpi_dcasgd.tools.bench.peer_update import PlainServer, rate_of


class Server:
    """The server's actor."""

    def __init__(self, size: int, workers: int) -> None:
        # What comes out of the object store is read-only, and is only read.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        self._server = PlainServer(size, workers)

    def apply_gradient(self, worker: int, grad: NDArray[np.float32]) -> NDArray[np.float32]:
        """Update the weights and return them."""
        import torch

        found: NDArray[np.float32] = self._server.push_and_pull(
            worker, torch.from_numpy(grad)
        ).numpy()
        return found

    def weights(self) -> NDArray[np.float32]:
        """The weights, for the first gradients."""
        found: NDArray[np.float32] = self._server.weights.numpy()
        return found


class Worker:
    """A worker's actor, whose gradient is always the same."""

    def __init__(self, size: int) -> None:
        self._grad = np.full(size, 1e-3, np.float32)

    def gradient(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute a gradient of these weights."""
        return self._grad


def main(spec: dict[str, Any]) -> None:
    """Measure each size."""
    import ray

    workers = spec["workers"]
    # Of actors as many as there are processes in the other benchmarks, however few the cores.
    ray.init(
        num_cpus=Topology("asynchronous", workers).world_size,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    rates = []
    for size in spec["sizes"]:
        server = ray.remote(Server).remote(size, workers)
        helpers = [ray.remote(Worker).remote(size) for _ in range(workers)]

        def run(rounds: int, server: Any = server, helpers: list[Any] = helpers) -> None:
            first = server.weights.remote()
            computing = {
                helper.gradient.remote(first): number for number, helper in enumerate(helpers)
            }
            last = []
            for number in range(rounds * workers):
                (gradient,), _ = ray.wait(list(computing))
                worker = computing.pop(gradient)
                weights = server.apply_gradient.remote(worker, gradient)
                if number < (rounds - 1) * workers:
                    computing[helpers[worker].gradient.remote(weights)] = worker
                else:
                    last.append(weights)
            ray.wait(last, num_returns=len(last))

        rates.append(rate_of(run, workers))
        for actor in (server, *helpers):
            ray.kill(actor)
    ray.shutdown()
    print(json.dumps(rates))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
