"""Benchmark of several seeds of a small model, together against one after the other.

Only the gradients are compared: with ``torch.func.vmap`` over stacked weights, and with batched
matrix products written for this one model. Data and updates are to be paid for each seed anyway.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from mpi_dcasgd.learning.models import build_model
from mpi_dcasgd.learning.models.mlp import Mlp

_SHAPE, _CLASSES, _REPEATS, _STEPS = (1, 8, 8), 10, 9, 100


@dataclass(frozen=True)
class Together:
    """CPU seconds for one gradient of each of so many seeds of the digits' MLP."""

    seeds: int
    batch_size: int
    apart_s: float
    vmap_s: float
    matrices_s: float


def measure_seeds(seeds: int = 8, batch_size: int = 16) -> Together:
    """Gradients of the digits' MLP, on the CPU."""
    models = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        models.append(build_model(Mlp(), _SHAPE, _CLASSES))
    inputs = torch.randn(seeds, batch_size, *_SHAPE)
    targets = torch.randint(0, _CLASSES, (seeds, batch_size))
    apart = _apart(models, inputs, targets)
    mapped = _mapped(models, inputs, targets)
    multiplied = _multiplied(models, inputs, targets)
    return Together(seeds, batch_size, _time_s(apart), _time_s(mapped), _time_s(multiplied))


def _apart(models: list[nn.Module], inputs: Tensor, targets: Tensor) -> Callable[[], object]:
    params = [list(model.parameters()) for model in models]

    def gradients() -> list[tuple[Tensor, ...]]:
        return [
            torch.autograd.grad(cross_entropy(model(x), y), mine)
            for model, mine, x, y in zip(models, params, inputs, targets, strict=True)
        ]

    return gradients


def _mapped(models: list[nn.Module], inputs: Tensor, targets: Tensor) -> Callable[[], object]:
    stacked, _ = stack_module_state(models)
    params = {name: value.detach() for name, value in stacked.items()}

    def loss(params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(functional_call(models[0], params, (x,)), y)

    together = vmap(grad(loss))
    return lambda: together(params, inputs, targets)


def _multiplied(models: list[nn.Module], inputs: Tensor, targets: Tensor) -> Callable[[], object]:
    stacked, _ = stack_module_state(models)
    params = [value.detach().requires_grad_() for value in stacked.values()]
    first, first_bias, second, second_bias = params
    flat = inputs.flatten(2)

    def gradients() -> tuple[Tensor, ...]:
        hidden = torch.relu(torch.baddbmm(first_bias[:, None], flat, first.mT))
        scores = torch.baddbmm(second_bias[:, None], hidden, second.mT)
        loss = cross_entropy(scores.flatten(0, 1), targets.flatten()) * len(models)
        return torch.autograd.grad(loss, params)

    return gradients


def _time_s(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(_REPEATS):
        started = time.process_time()
        for _ in range(_STEPS):
            work()
        times.append((time.process_time() - started) / _STEPS)
    return statistics.median(times)
