"""The largest stable learning rate of a rule under constant delay, found through the real chain.

Near a minimum the loss is a quadratic, and along each direction of curvature a the gradient is
``a * w``. With equal workers that push in turn, one round of pushes is then a linear map of what
server and workers hold, and training is stable if the map shrinks everything that can occur.
Giladi et al. (ICLR 2020) solve this for SGD and for momentum in closed form; here any rule whose
steps are linear is taken through its own arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.rules.chain import Chain
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.rules.weight_decay import WeightDecay
from mpi_dcasgd.wording import counted

_SMALL = 1e-12
"""Distance from the minimum: so small that terms of second order, as of compensation, vanish."""

_UPDATES = 10**6  # made before: whatever a rule does only at the start is over
_HIGHEST = 1e9  # where the search ends

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Stable:
    """Largest stable rate of a rule with so many workers.

    Attributes:
        workers: Equal ones that push in turn, so that every gradient is ``workers - 1`` stale.
        rate: The largest stable learning rate times the largest curvature.
        factor: The same over that of one worker: what the rate has to be multiplied by to keep
            the margin that it has without delay.
    """

    workers: int
    rate: float
    factor: float


def stable_rates(rule: Rule, workers: Sequence[int], name: str = "the rule") -> list[Stable]:
    """The largest stable rate for each number of workers.

    Weight decay is left out: it is a curvature of its own.

    Raises:
        ConfigError: The rule takes no gradients that are so stale, or its steps are not linear
            near a minimum.
    """
    rule = replace(rule, weight_decay=WeightDecay())
    _check(rule, (1, *workers), name)
    alone = largest_stable(rule, 1)
    found = ((count, largest_stable(rule, count)) for count in workers)
    return [Stable(count, rate, rate / alone) for count, rate in found]


def largest_stable(rule: Rule, workers: int) -> float:
    """The largest stable learning rate times curvature, by bisection, to five digits.

    Infinite for a rule that no rate up to 10^9 makes grow.
    """
    stable, unstable = 0.0, 4.0
    while growth(rule, workers, unstable) < 1.0:
        stable, unstable = unstable, 2 * unstable
        if unstable > _HIGHEST:
            return math.inf
    while unstable - stable > 1e-6 * unstable:
        middle = (stable + unstable) / 2
        if growth(rule, workers, middle) < 1.0:
            stable = middle
        else:
            unstable = middle
    return stable


def growth(rule: Rule, workers: int, curvature: float) -> float:
    """By how much one round multiplies the largest mode that can occur; above 1 is unstable.

    Args:
        rule: Its steps are linear near a minimum.
        workers: Push in turn.
        curvature: Times the learning rate, which is 1.
    """
    round_map, kicks = _round(rule, workers, curvature)
    reachable = _reachable(round_map, kicks)
    inner = reachable.T @ round_map @ reachable
    return float(np.abs(np.linalg.eigvals(inner)).max(initial=0.0))


def _stale(workers: int) -> str:
    return f"{counted(workers - 1, 'update')} stale"


def _check(rule: Rule, workers: Sequence[int], name: str) -> None:
    for count in workers:
        verdict = rule.admission.verdict(_facts(0, count))
        if verdict == "drop":
            why = f"with {counted(count, 'worker')} it drops all gradients, {_stale(count)}"
        elif verdict == "hold":
            why = "it holds gradients and applies the mean of many"
        elif not _round(rule, count, 0.01)[1].any():
            why = f"gradients of {counted(count, 'worker')}, {_stale(count)}, change nothing"
        elif not _off(rule, count, 0.01) < 1e-3:
            why = "its steps are not in proportion to how far the weights are from the minimum"
        else:
            continue
        problem = f"a largest stable rate cannot be told, for {why}"
        raise ConfigError(name, [f"{problem}; see what it does with mpi-dcasgd simulate"])


def _facts(worker: int, workers: int) -> Facts:
    return Facts(
        lr=1.0,
        lr_max=1.0,
        staleness=workers - 1,
        version=_UPDATES + worker,
        worker=worker,
        num_workers=workers,
        grad_norm=0.0,
    )


def _round(rule: Rule, workers: int, curvature: float) -> tuple[Matrix, Matrix]:
    """One round in which every worker pushes once.

    Element j of every vector is a world of its own: in the first ones only one number of all that
    server and workers hold is not zero, in the others only one worker's gradient is disturbed.

    Returns:
        The map of all numbers, shape (n, n), and what a disturbance of each gradient leaves, shape
        (n, workers).
    """
    size = 1 + workers + rule.state_vectors(workers)
    start = torch.zeros(size, size + workers, dtype=torch.float64)
    start[:, :size] = torch.eye(size) * _SMALL
    world = _World(rule, start[0].clone(), workers, curvature)
    for vector, value in zip(world.held(), start, strict=True):
        vector.copy_(value)
    kicks = torch.zeros(workers, size + workers, dtype=torch.float64)
    kicks[:, size:] = torch.eye(workers) * _SMALL
    world.round(kicks)
    ends: Matrix = torch.stack(world.held()).numpy() / _SMALL
    return ends[:, :size], ends[:, size:]


def _off(rule: Rule, workers: int, curvature: float) -> float:
    """Relative distance between a few rounds and the linear map's prediction."""
    rounds, near = 3, 1e-5
    world = _World(rule, torch.full((1,), near, dtype=torch.float64), workers, curvature)
    expected: Matrix = torch.stack(world.held()).numpy()
    round_map, _ = _round(rule, workers, curvature)
    for _ in range(rounds):
        world.round(torch.zeros(workers, 1, dtype=torch.float64))
        expected = round_map @ expected
    found = torch.stack(world.held()[: 1 + workers]).numpy()
    return float(np.abs(found / expected[: 1 + workers] - 1).max())


class _World:
    """Server and workers near a minimum, all at the same weights."""

    def __init__(self, rule: Rule, params: Tensor, workers: int, curvature: float) -> None:
        self._chain = Chain(rule, params, workers, fuse="plain")
        self._curvature = curvature
        self._params = params
        self._snapshots = [params.clone() for _ in range(workers)]

    def held(self) -> list[Tensor]:
        """Every vector: weights, snapshots, state."""
        state = [v for vectors in self._chain.state_dict().values() for v in vectors]
        return [self._params, *self._snapshots, *state]

    def round(self, kicks: Tensor) -> None:
        """Every worker pushes, its gradient disturbed by its row of ``kicks``."""
        workers = len(self._snapshots)
        for worker, (snapshot, kick) in enumerate(zip(self._snapshots, kicks, strict=True)):
            grad = self._curvature * snapshot + kick
            self._chain.apply(self._params, grad, snapshot, _facts(worker, workers))


def _reachable(round_map: Matrix, kicks: Matrix) -> Matrix:
    """An orthonormal basis of all that disturbed gradients can lead to.

    What a rule keeps may be tied together, as DANA's sum is to its parts. What breaks such a tie
    never occurs, and need not shrink.
    """
    basis = np.zeros((len(round_map), 0))
    ahead = kicks
    while ahead.shape[1]:
        for _ in range(2):  # the second time for what rounding has left
            ahead = ahead - basis @ (basis.T @ ahead)
        left, sizes, _ = np.linalg.svd(ahead, full_matrices=False)
        fresh = left[:, sizes > 1e-9]
        basis = np.hstack([basis, fresh])
        ahead = round_map @ fresh
    return basis
