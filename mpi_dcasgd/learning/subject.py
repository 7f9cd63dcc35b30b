"""A task with its data at hand: what training and evaluation work on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.data.dataset import Split
from mpi_dcasgd.learning.data.own import Loading, check_alike, split_of
from mpi_dcasgd.learning.data.part import set_apart
from mpi_dcasgd.learning.generators import plant
from mpi_dcasgd.learning.guard import guarded
from mpi_dcasgd.learning.task import Task


@dataclass(frozen=True)
class Subject:
    """A task, and the splits that its data were made into.

    Attributes:
        task: What is trained, its loss and its metrics.
        train: Where minibatches come from.
        test: What is reported.
        validation: What chooses the best weights; None to choose by ``test``.
    """

    task: Task
    train: Split
    test: Split
    validation: Split | None = None

    @classmethod
    def open(cls, task: Task, seed: int, device: torch.device, validation: float = 0.0) -> Subject:
        """Have a task make its data, for one device.

        Args:
            task: Made for this rank alone.
            seed: The job's.
            device: Where batches will be.
            validation: Fraction of the training samples that are set apart for validation, unless
                the task brings validation data.

        Raises:
            ConfigError: The task's own code fails, or so many validation samples cannot be.
            DataError: The data are missing or not what they should be.
        """
        task.seed, task.device = seed, device
        loading = Loading(task.collate, task.evaluation_draws, device)
        splits = {}
        for name in ("train", "test", "validation"):
            # Whatever is drawn for the data must be the same on every rank.
            plant(seed)
            with guarded(task, f"{name}_data") as make:
                data = make()
            if data is not None or name != "validation":
                splits[name] = split_of(data, name, loading)
        for name in splits:
            check_alike(splits["train"], splits[name], name)
        if validation and "validation" not in splits:
            splits["train"], splits["validation"] = set_apart(splits["train"], validation)
        return cls(task, splits["train"], splits["test"], splits.get("validation"))

    def build_model(self, seed: int) -> nn.Module:
        """Build the task's model with its first weights, which follow from the seed alone.

        Raises:
            ConfigError: The task's own code fails, or returns something else.
        """
        return build(self.task, seed)


def build(task: Task, seed: int) -> nn.Module:
    """Build a task's model with its first weights, which follow from the seed alone.

    Args:
        task: Its ``seed`` and ``device`` are set.
        seed: The job's.

    Raises:
        ConfigError: The task's own code fails, or returns something else.
    """
    plant(seed)
    with guarded(task, "model") as make:
        model = make()
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"{type(task).__name__}.model",
            [f"returned {type(model).__name__}; allowed: a torch.nn.Module"],
        )
    return model
