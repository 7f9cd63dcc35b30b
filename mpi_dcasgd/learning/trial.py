"""A first gradient and a first evaluation before training, so that mistakes are reported then.

A task's own code can be wrong in ways that only running it tells. Every worker tries the first
minibatch, and an epoch's last if it is smaller, at the first weights; whoever evaluates tries the
metrics on two samples. It warms PyTorch up as well, whose first step in a process costs extra.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.declared import check_units
from mpi_dcasgd.learning.evaluation import check_scalar, evaluate
from mpi_dcasgd.learning.flat import FlatModel
from mpi_dcasgd.learning.learner import Batch, Learner
from mpi_dcasgd.learning.subject import Subject

_NAMED = 5
_log = logging.getLogger(__name__)


def try_out(learner: Learner) -> None:
    """Compute the gradient of the first minibatch, and of an epoch's last, and forget them.

    Leaves batch statistics behind the weights and a gradient in ``flat.grad``; both are
    overwritten by the next pull and the next gradient.

    Args:
        learner: Its model holds weights at which the loss should be finite.

    Raises:
        ConfigError: The loss is not a finite scalar, or does not depend on the parameters, or
            training changes buffers that no one keeps, or the model or the loss fails.
        DataError: The samples cannot be had.
    """
    tickets = sorted({0, learner.plan.tickets_per_epoch - 1})
    batches = [learner.load(ticket) for ticket in tickets]
    before = _buffers(learner.flat)
    _check_loss(learner, batches[0])
    _check_buffers(learner, before)
    for batch in batches:
        learner.gradient(batch)


def watch_weights(flat: FlatModel) -> Callable[[], bool]:
    """Return a function that tells whether something has written to the parameters since.

    Computing a gradient should not. Some modules do all the same, such as an embedding with
    ``max_norm``, which may write what was there.

    Args:
        flat: The model.
    """
    values = flat.params.clone()
    # Writing the same values shows in the parameter's version, writing to its data in the values.
    versions = [parameter._version for parameter in flat.trained().values()]
    return lambda: (
        versions != [parameter._version for parameter in flat.trained().values()]
        or not torch.equal(values, flat.params)
    )


def try_metrics(flat: FlatModel, subject: Subject) -> None:
    """Evaluate two samples of each split, and forget the result.

    Args:
        flat: The model that will evaluate.
        subject: The task and its data.

    Raises:
        ConfigError: The metrics are not what they should be, or the primary one is missing.
        DataError: The samples cannot be had.
    """
    task = subject.task
    splits = [subject.test, *([] if subject.validation is None else [subject.validation])]
    for split in splits:
        found = evaluate(flat.model, task, split, flat.weights.device, samples=2)
        if task.primary_metric not in found:
            raise ConfigError(
                type(task).__name__,
                [
                    f"primary_metric: got {task.primary_metric!r}; allowed: one of those that "
                    f"metrics() returns: {', '.join(found)}"
                ],
            )
        check_units(task, list(found))


def _check_loss(learner: Learner, batch: Batch) -> None:
    """Refuse what is no loss, by what comes out of the first minibatch."""
    loss = learner.try_loss(batch)
    where = f"{type(learner.subject.task).__name__}.loss"
    check_scalar(learner.subject.task, loss)
    if not math.isfinite(loss.item()):
        raise ConfigError(
            where,
            [
                f"is {loss.item()} for the first minibatch at the first weights; look for NaN or "
                "infinite values in the data, and for logarithms and divisions of zero"
            ],
        )
    params = learner.flat.trained()
    found: Iterable[Tensor | None] = [None] * len(params)
    if loss.requires_grad:
        found = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
    given = dict(zip(params, found, strict=True))
    sparse = [name for name, value in given.items() if value is not None and value.is_sparse]
    if sparse:
        raise ConfigError(
            where,
            [f"the gradients of {_listed(sparse)} are sparse; allowed: dense ones (sparse=False)"],
        )
    unused = [name for name, value in given.items() if value is None]
    if len(unused) == len(given):
        raise ConfigError(
            where,
            [
                "does not depend on the parameters of the model; compute it from what the model "
                "returns, without .detach(), .item() or torch.no_grad()"
            ],
        )
    if unused:
        _log.warning(
            "no gradient reaches %s: they keep their first values, but for weight decay",
            _listed(unused),
        )


def _check_buffers(learner: Learner, before: dict[str, Tensor]) -> None:
    """Refuse a model that keeps something else from step to step than BatchNorm's statistics."""
    after = _buffers(learner.flat)
    changed = [name for name in before if not _same(before[name], after[name])]
    if changed:
        raise ConfigError(
            f"{type(learner.subject.task).__name__}.model",
            [
                f"training changes the buffers {_listed(changed)}, which workers do not share; "
                "allowed: running statistics of BatchNorm, which travel with the weights, and "
                "buffers that stay as they are"
            ],
        )


def _buffers(flat: FlatModel) -> dict[str, Tensor]:
    """Copies of the buffers that do not travel, BatchNorm's counter left out."""
    travel = {field.name for field in flat.layout.stats}
    return {
        name: buffer.detach().clone()
        for name, buffer in flat.model.named_buffers()
        if name not in travel and not name.endswith("num_batches_tracked")
    }


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(
        one.nan_to_num() if one.is_floating_point() else one,
        other.nan_to_num() if other.is_floating_point() else other,
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
