"""Drive a server for a law: random gradients from workers that push in a random order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mpi_dcasgd.tools.conformance.servers import Server, may_push

LR = 0.05
SIZE = 12
PUSHES = 24


def random_vectors(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers, the same ones in every precision."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def start_weights(dtype: torch.dtype = torch.float64) -> Tensor:
    """w_0, shape (SIZE,)."""
    return random_vectors(1, SIZE, dtype=dtype)


def random_picks(seed: int, pushes: int = PUSHES) -> list[int]:
    """Random generator by which ``drive`` chooses workers."""
    generator = torch.Generator().manual_seed(seed)
    return [int(i) for i in torch.randint(0, 1 << 30, (pushes,), generator=generator)]


def drive(
    server: Server,
    num_workers: int,
    picks: Sequence[int],
    grad: Callable[[int, Tensor], Tensor],
    names: Sequence[int] | None = None,
) -> list[Tensor]:
    """Let all workers pull, then push in a random order, each pulling again at once.

    Args:
        server: What is driven.
        num_workers: Workers 0, 1, ...
        picks: One number a push; it chooses among the workers that have something to push.
        grad: Number of the push and weights pulled -> gradient.
        names: What the server knows each worker as, if not by its number.

    Returns:
        What each pushing worker pulled afterwards.
    """
    names = names or range(num_workers)
    pulled = [server.pull(name).clone() for name in names]
    seen = []
    for number, pick in enumerate(picks):
        able = [worker for worker in range(num_workers) if may_push(server, names[worker])]
        worker = able[pick % len(able)]
        server.push(names[worker], grad(number, pulled[worker]))
        for other in range(num_workers):
            # Those that had to wait are given their weights as soon as they may go on.
            if other == worker or (other not in able and may_push(server, names[other])):
                pulled[other] = server.pull(names[other]).clone()
        seen.append(pulled[worker].clone())
    return seen


def noisy_bowl(dtype: torch.dtype = torch.float64) -> Callable[[int, Tensor], Tensor]:
    """Gradients of a quadratic with its minimum at 0, with noise."""
    curvature = torch.linspace(0.5, 2.0, SIZE, dtype=dtype)
    noise = random_vectors(2, PUSHES, SIZE, dtype=dtype)
    return lambda number, weights: curvature * weights + 0.3 * noise[number]


def steps_alone(server: Server, worker: int, grads: Sequence[Tensor]) -> list[Tensor]:
    """Distances by which a lone worker's pushes move the weights that it pulls."""
    before = server.pull(worker).clone()
    steps = []
    for grad in grads:
        server.push(worker, grad.clone())
        after = server.pull(worker).clone()
        steps.append(after - before)
        before = after
    return steps


def random_grads(count: int, seed: int = 3) -> list[Tensor]:
    """So many gradients, shape (SIZE,) each."""
    return list(random_vectors(seed, count, SIZE))
