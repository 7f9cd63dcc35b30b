"""Delay compensation done wrong, in five ways in which public code has done it.

Written from scratch to be as short as the faults allow; each is otherwise right. The conformance
suite must name the law that each of them breaks (test_conformance.py, docs/algorithms.md).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.rules.part import Facts, Lanes, Part, Role, StateVector


class SharedBackup:
    """One backup for all workers: whoever pulls last overwrites it."""

    def __init__(
        self, weights: Tensor, num_workers: int, lr: float, dc_lambda: float = 0.5
    ) -> None:
        self.weights, self.lr, self.dc_lambda = weights, lr, dc_lambda
        self.backup = weights.clone()

    def pull(self, worker: int) -> Tensor:
        self.backup = self.weights.clone()
        return self.weights.clone()

    def push(self, worker: int, grad: Tensor) -> None:
        drift = self.weights - self.backup
        self.weights -= self.lr * (grad + self.dc_lambda * grad * grad * drift)


class ZeroBackup:
    """A backup per worker that begins at zero and is first written after the first push."""

    def __init__(
        self, weights: Tensor, num_workers: int, lr: float, dc_lambda: float = 0.5
    ) -> None:
        self.weights, self.lr, self.dc_lambda = weights, lr, dc_lambda
        self.backups = [torch.zeros_like(weights) for _ in range(num_workers)]

    def pull(self, worker: int) -> Tensor:
        return self.weights.clone()

    def push(self, worker: int, grad: Tensor) -> None:
        drift = self.weights - self.backups[worker]
        self.weights -= self.lr * (grad + self.dc_lambda * grad * grad * drift)
        self.backups[worker] = self.weights.clone()


class AliasedBackup:
    """A backup per worker that is the live weights themselves, so nothing ever drifts."""

    def __init__(
        self, weights: Tensor, num_workers: int, lr: float, dc_lambda: float = 0.5
    ) -> None:
        self.weights, self.lr, self.dc_lambda = weights, lr, dc_lambda
        self.backups = [weights] * num_workers

    def pull(self, worker: int) -> Tensor:
        self.backups[worker] = self.weights
        return self.weights.clone()

    def push(self, worker: int, grad: Tensor) -> None:
        drift = self.weights - self.backups[worker]
        self.weights -= self.lr * (grad + self.dc_lambda * grad * grad * drift)


class TurnedSign:
    """The drift the other way round: a stale gradient is taken further from the one of now."""

    def __init__(
        self, weights: Tensor, num_workers: int, lr: float, dc_lambda: float = 0.5
    ) -> None:
        self.weights, self.lr, self.dc_lambda = weights, lr, dc_lambda
        self.backups = [weights.clone() for _ in range(num_workers)]

    def pull(self, worker: int) -> Tensor:
        self.backups[worker] = self.weights.clone()
        return self.weights.clone()

    def push(self, worker: int, grad: Tensor) -> None:
        drift = self.backups[worker] - self.weights
        self.weights -= self.lr * (grad + self.dc_lambda * grad * grad * drift)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CompoundingLambda(Part):
    """Adaptive lambda, divided by the root mean square of this push and of all pushes before."""

    role: ClassVar[Role] = "compensation"
    reads_snapshot: ClassVar[bool] = True

    dc_lambda: float = 0.5

    def vectors(self) -> tuple[StateVector, ...]:
        return (StateVector("mean_square"), StateVector("log_divisor"))

    def scalars(self, facts: Facts) -> tuple[float, ...]:
        return (self.dc_lambda, 0.95, 1e-2)

    def update(
        self, lanes: Lanes, state: tuple[Tensor, ...], scalars: tuple[float | Tensor, ...]
    ) -> tuple[Lanes, tuple[Tensor, ...]]:
        dc_lambda, decay, eps = scalars
        mean_square = state[0] * decay + lanes.grad * lanes.grad * (1 - decay)
        log_divisor = state[1] + 0.5 * torch.log(mean_square + eps)
        correction = lanes.grad * lanes.grad * (lanes.params - lanes.snapshot)
        direction = lanes.direction + correction * dc_lambda / torch.exp(log_divisor)
        return lanes._replace(direction=direction), (mean_square, log_divisor)
