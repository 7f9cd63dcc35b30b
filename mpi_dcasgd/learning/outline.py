"""Sizes of a task before a run starts: its data's, and its model without memory.

The meta device computes shapes without memory, so that this costs next to nothing at any size.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.data.dataset import Facts, Split
from mpi_dcasgd.learning.data.nests import NestSplit
from mpi_dcasgd.learning.data.part import facts_with_validation
from mpi_dcasgd.learning.generators import kept
from mpi_dcasgd.learning.models.shapes import check_last_batch
from mpi_dcasgd.learning.nest import tensors_of
from mpi_dcasgd.learning.subject import Subject, build
from mpi_dcasgd.learning.task import Task
from mpi_dcasgd.learning.tasks.sections import SectionTask

_CPU = torch.device("cpu")


def sizes_of(task: Task, seed: int, validation: float = 0.0) -> Facts:
    """Tell the sizes of a task's data, which are not loaded if their files tell them.

    Args:
        task: Made for this alone.
        seed: The job's.
        validation: As for ``Subject.open``.

    Raises:
        ConfigError, DataError: As ``Subject.open``.
    """
    if isinstance(task, SectionTask):
        task.seed, task.device = seed, _CPU
        return task.sizes
    with kept():
        subject = Subject.open(task, seed, _CPU)
    splits = (subject.train, subject.test, subject.validation)
    facts = Facts(
        num_train=len(subject.train),
        num_test=len(subject.test),
        num_validation=0 if subject.validation is None else len(subject.validation),
        num_classes=0,
        input_shape=(),
        resident_bytes=sum(_resident_bytes(split) for split in splits if split is not None),
    )
    if not validation or facts.num_validation:
        return facts
    return facts_with_validation(facts, validation)


def model_of(task: Task, seed: int) -> nn.Module:
    """Build a task's model as shapes, or, if it computes while it is built, as it is.

    Raises:
        ConfigError: The task's own code fails, or the model does not take the data.
    """
    with kept():
        try:
            with torch.device("meta"):
                return build(task, seed)
        except ConfigError as error:
            if not isinstance(error.__cause__, (NotImplementedError, RuntimeError)):
                raise
        return build(task, seed)


def lone_sample(
    task: Task, batch_size: int, accumulate: int, module: nn.Module | None = None
) -> list[str]:
    """Find out whether a size of minibatch leaves a model with BatchNorm a single sample.

    Of other tasks than those with a job's model and data this comes out when they are tried.

    Args:
        task: Its data have been loaded or described.
        batch_size: Of one worker.
        accumulate: Parts that a minibatch is computed in.
        module: From ``model_of``, if it has been built already.

    Returns:
        The problem, beginning with the key of the job, or nothing.
    """
    if not isinstance(task, SectionTask):
        return []
    return check_last_batch(
        task.model_source, task.sizes, batch_size, module, accumulate=accumulate
    )


def _resident_bytes(split: Split) -> int:
    if not isinstance(split, NestSplit):
        return 0
    tensors = tensors_of(split.nest)
    return sum(math.prod(tensor.shape) * tensor.element_size() for tensor in tensors)
