"""A task with its data at hand: what training and evaluation work on."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakSet

import torch
from torch import nn

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.data.dataset import Split
from mpi_dcasgd.learning.data.own import Loading, check_alike, split_of
from mpi_dcasgd.learning.data.part import set_apart
from mpi_dcasgd.learning.declared import check_declared
from mpi_dcasgd.learning.generators import plant
from mpi_dcasgd.learning.guard import guarded
from mpi_dcasgd.learning.task import Task

_built: WeakSet[nn.Module] = WeakSet()
"""All modules with parameters to train so far: one that comes again is being trained already."""


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
                the data set has done so.

        Raises:
            ConfigError: The task's own code fails, it brings validation data of its own beside
                that fraction, or so many samples cannot be set apart.
            DataError: The data are missing or not what they should be.
        """
        check_declared(task)
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
        if validation and "validation" in splits and _is_own(task, "validation_data"):
            raise ConfigError(
                "job",
                [
                    f"data.validation: has no effect, since {type(task).__name__} has "
                    "validation_data(); omit one of them"
                ],
            )
        if validation and "validation" not in splits:
            splits["train"], splits["validation"] = set_apart(splits["train"], validation)
        return cls(task, splits["train"], splits["test"], splits.get("validation"))

    def build_model(self, seed: int) -> nn.Module:
        """Build the task's model with its first weights, which follow from the seed alone.

        Raises:
            ConfigError: The task's own code fails, or returns something else.
        """
        return build(self.task, seed)


def _is_own(task: Task, method: str) -> bool:
    """Return whether a method is the user's, and none of the tasks of the package."""
    owner = next(kind for kind in type(task).__mro__ if method in vars(kind))
    return not owner.__module__.startswith("mpi_dcasgd.")


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
    if kept := _kept_from_before(model):
        raise ConfigError(
            f"{type(task).__name__}.model",
            [f"returned {kept}, which it has returned before; make all of it anew at every call"],
        )
    _built.update(module for module in model.modules() if _is_trained(module))
    return model


def _kept_from_before(model: nn.Module) -> str:
    """Return the first part of a model that was not made for it; empty if all of it was."""
    shapes_only = torch.empty(0).is_meta
    for name, module in model.named_modules():
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if module in _built or (not shapes_only and any(tensor.is_meta for tensor in own)):
            return f"the module {name}" if name else "a module"
    return ""


def _is_trained(module: nn.Module) -> bool:
    return any(one.requires_grad for one in module.parameters(recurse=False))
