"""Evaluation of a model on a split: the mean of every metric of its task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.data.dataset import Split
from mpi_dcasgd.learning.generators import plant
from mpi_dcasgd.learning.guard import guarded
from mpi_dcasgd.learning.nest import to_device
from mpi_dcasgd.learning.task import Task

LOSS = "loss"
_SEED = 0x7E57


@torch.no_grad()
def evaluate(
    model: nn.Module, task: Task, split: Split, device: torch.device, *, samples: int | None = None
) -> dict[str, float]:
    """Measure a model on a split, in evaluation mode.

    Args:
        model: On ``device``.
        task: Whose metrics are taken.
        split: Test or validation samples.
        device: Where batches go.
        samples: How many to look at, to try out the metrics; None for all.

    Returns:
        Metric to its mean, ``loss`` among them.

    Raises:
        ConfigError: The task's own code fails, or gives something else than sums and weights.
        DataError: A sample cannot be read.
    """
    model.eval()
    if task.evaluation_draws:
        plant(_SEED)  # so that what is drawn is the same for all weights
    sums: dict[str, list[float]] = {}
    end = len(split) if samples is None else min(samples, len(split))
    for start in range(0, end, task.evaluation_batch):
        indices = np.arange(start, min(start + task.evaluation_batch, end), dtype=np.int64)
        batch = to_device(split.batch(indices, None), device)
        for name, (total, weight) in _measure(model, task, batch, len(indices)).items():
            mine = sums.setdefault(name, [0.0, 0.0])
            mine[0] += total
            mine[1] += weight
    if samples is not None:  # of so few a weight may well be 0
        return {name: total for name, (total, _) in sums.items()}
    return {name: _mean(task, name, total, weight) for name, (total, weight) in sums.items()}


def _measure(
    model: nn.Module, task: Task, batch: Any, samples: int
) -> dict[str, tuple[float, float]]:
    with guarded(task, "metrics") as metrics:
        found = metrics(model, batch)
    if not isinstance(found, Mapping):
        raise _wrong(task, f"returned {type(found).__name__}")
    measured = {name: _pair(task, name, value) for name, value in found.items()}
    if LOSS not in measured:
        with guarded(task, "loss") as loss:
            measured[LOSS] = (float(loss(model, batch)) * samples, float(samples))
    return measured


def _pair(task: Task, name: Any, value: Any) -> tuple[float, float]:
    try:
        total, weight = value
        return float(total), float(weight)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _wrong(task, f"has {value!r:.80} for {name!r}") from error


def _mean(task: Task, name: str, total: float, weight: float) -> float:
    if not weight > 0:
        raise _wrong(task, f"gave {name!r} the weight {weight:g} over a whole split")
    return total / weight


def _wrong(task: Task, seen: str) -> ConfigError:
    return ConfigError(
        type(task).__name__,
        [
            f"metrics: {seen}; allowed: a mapping of each metric's name to its sum over the batch "
            'and the weight of that sum, {"error": (wrong, answers)}, with weights above 0'
        ],
    )
