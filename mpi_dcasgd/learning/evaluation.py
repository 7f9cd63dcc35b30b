"""Evaluation of a model on a split: the mean of every metric of its task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.data.dataset import Split
from mpi_dcasgd.learning.generators import plant
from mpi_dcasgd.learning.guard import guarded
from mpi_dcasgd.learning.loaders.lookahead import batches_of
from mpi_dcasgd.learning.nest import to_device
from mpi_dcasgd.learning.task import Task

LOSS = "loss"
_SEED = 0x7E57


@torch.no_grad()
def evaluate(
    model: nn.Module,
    task: Task,
    split: Split,
    device: torch.device,
    *,
    samples: int | None = None,
    alive: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Measure a model on a split, in evaluation mode.

    Args:
        model: On ``device``.
        task: Whose metrics are taken.
        split: Test or validation samples.
        device: Where batches go.
        samples: How many to look at, to try out the metrics; None for all.
        alive: Called after each batch.

    Returns:
        Metric to its mean, ``loss`` among them, and what the task derives from the means.

    Raises:
        ConfigError: The task's own code fails, or gives something else than sums and weights.
        DataError: A sample cannot be read.
    """
    model.eval()
    sums: dict[str, list[float]] = {}
    end = len(split) if samples is None else min(samples, len(split))
    starts = range(0, end, task.evaluation_batch)
    parts = [np.arange(n, min(n + task.evaluation_batch, end), dtype=np.int64) for n in starts]
    for indices, loaded in zip(parts, batches_of(split, parts), strict=True):
        batch = to_device(loaded, device)
        if task.evaluation_draws:
            # So that what is drawn is the same for all weights, and whoever loads the samples.
            plant(_SEED + int(indices[0]))
        for name, (total, weight) in _measure(model, task, batch, len(indices)).items():
            mine = sums.setdefault(name, [0.0, 0.0])
            mine[0] += total
            mine[1] += weight
        alive()
    few = samples is not None  # of so few a weight may well be 0
    means = {
        name: total if few and not weight > 0 else _mean(task, name, total, weight)
        for name, (total, weight) in sums.items()
    }
    return means | _derived(task, means)


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
            mean = loss(model, batch)
        check_scalar(task, mean)
        measured[LOSS] = (float(mean) * samples, float(samples))
    return measured


def check_scalar(task: Task, loss: object) -> None:
    """Refuse what is no loss.

    Args:
        task: Whose it is.
        loss: What its method returned.

    Raises:
        ConfigError: It is no tensor of one floating-point number.
    """
    if isinstance(loss, Tensor) and loss.numel() == 1 and loss.dtype.is_floating_point:
        return
    seen = type(loss).__name__
    if isinstance(loss, Tensor):
        dtype = str(loss.dtype).removeprefix("torch.")
        seen = f"a tensor of shape {tuple(loss.shape)} and {dtype}"
    raise ConfigError(
        f"{type(task).__name__}.loss",
        [f"returned {seen}; allowed: a scalar tensor, the mean over the samples"],
    )


def _pair(task: Task, name: Any, value: Any) -> tuple[float, float]:
    if not isinstance(name, str):
        raise _wrong(task, f"has the name {name!r}, which is no text")
    try:
        total, weight = value
        return float(total), float(weight)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _wrong(task, f"has {value!r:.80} for {name!r}") from error


def _mean(task: Task, name: str, total: float, weight: float) -> float:
    if not weight > 0:
        raise _wrong(task, f"gave {name!r} the weight {weight:g} over a whole split")
    return total / weight


def _derived(task: Task, means: dict[str, float]) -> dict[str, float]:
    with guarded(task, "derived") as derived:
        found = derived(dict(means))
        if not (isinstance(found, Mapping) and all(isinstance(name, str) for name in found)):
            raise ConfigError(
                type(task).__name__,
                [f"derived: returned {found!r:.80}; allowed: a mapping of names to numbers"],
            )
        return {name: float(value) for name, value in found.items()}


def _wrong(task: Task, seen: str) -> ConfigError:
    return ConfigError(
        type(task).__name__,
        [
            f"metrics: {seen}; allowed: a mapping of each metric's name to its sum over the batch "
            'and the weight of that sum, {"error": (wrong, answers)}, with weights above 0'
        ],
    )
