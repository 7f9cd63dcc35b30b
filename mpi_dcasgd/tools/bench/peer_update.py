"""DC-ASGD-a as one would write it in PyTorch, for servers that are not this package's."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

_LEAST_S = 1.0
_LR, _LAMBDA, _DECAY, _EPS = 1e-6, 2.0, 0.95, 1e-7


class PlainServer:
    """Weights, one snapshot a worker, and the mean square, updated by expressions of PyTorch.

    Args:
        size: Elements of the weights.
        workers: Number of workers.
    """

    def __init__(self, size: int, workers: int) -> None:
        self.weights = torch.randn(size)
        self._mean_square = torch.zeros(size)
        self._snapshots = [self.weights.clone() for _ in range(workers)]

    def push_and_pull(self, worker: int, grad: Tensor) -> Tensor:
        """Update the weights, and return what the worker is to go on with: its new snapshot.

        Args:
            worker: Who computed the gradient.
            grad: Shape (size,).
        """
        square = grad * grad
        self._mean_square.mul_(_DECAY).add_(square, alpha=1 - _DECAY)
        strength = _LAMBDA / torch.sqrt(self._mean_square + _EPS)
        drift = self.weights - self._snapshots[worker]
        self.weights.sub_(_LR * (grad + strength * square * drift))
        self._snapshots[worker] = self.weights.clone()
        return self._snapshots[worker]


def rate_of(run: Callable[[int], None], workers: int) -> float:
    """Return how many pushes and pulls a second a server deals with.

    Args:
        run: Makes so many of each worker.
        workers: Number of workers.
    """
    run(2)  # connections, memory and code are there afterwards
    rounds = 2
    while True:
        started = time.perf_counter()
        run(rounds)
        spent_s = time.perf_counter() - started
        if spent_s >= _LEAST_S:
            return workers * rounds / spent_s
        rounds = max(2 * rounds, min(16 * rounds, int(1.2 * _LEAST_S / spent_s * rounds)))
