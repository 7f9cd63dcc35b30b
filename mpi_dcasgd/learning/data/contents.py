"""Checks of loaded data that cost next to nothing, whoever wrote the data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpi_dcasgd.errors import DataError
from mpi_dcasgd.learning.data.dataset import Dataset, Split

if TYPE_CHECKING:
    from torch import Tensor


def check_contents(dataset: Dataset) -> None:
    """Refuse data that no run could be made of: too few, of several shapes, of unknown classes.

    Of each split one sample is read; where a split has all its labels in an attribute
    ``targets``, all of them are looked at, else those of that sample. What a split returns that
    is no pair of tensors is left to the task that knows what it means.

    Raises:
        DataError: A split is empty, a sample's shape is not the data set's, or a label is none of
            its classes.
    """
    import numpy as np

    for kind, split in _splits(dataset):
        if not len(split):
            raise DataError(f"{dataset.name}: there are no {kind} samples; there must be one")
    for kind, split in _splits(dataset):
        pair = _pair(split.batch(np.zeros(1, dtype=np.int64), None))
        if pair is None:
            continue
        inputs, targets = pair
        _check_shape(dataset, kind, tuple(inputs.shape[1:]))
        _check_labels(dataset, kind, _labels(split, targets))


def _splits(dataset: Dataset) -> list[tuple[str, Split]]:
    splits: list[tuple[str, Split]] = [("training", dataset.train), ("test", dataset.test)]
    if dataset.validation is not None:
        splits.append(("validation", dataset.validation))
    return splits


def _pair(batch: Any) -> tuple[Tensor, Tensor] | None:
    """The inputs and targets of a batch, if that is what it is made of."""
    from torch import Tensor

    if not isinstance(batch, tuple) or len(batch) != 2:
        return None
    inputs, targets = batch
    both = isinstance(inputs, Tensor) and isinstance(targets, Tensor)
    return (inputs, targets) if both else None


def _check_shape(dataset: Dataset, kind: str, shape: tuple[int, ...]) -> None:
    if shape != tuple(dataset.input_shape):
        raise DataError(
            f"{dataset.name}: {kind} samples have the shape {shape}, but the data set says "
            f"{tuple(dataset.input_shape)}; all samples must have one shape"
        )


def _labels(split: Split, of_sample: Tensor) -> Tensor:
    import torch

    targets = getattr(split, "targets", None)
    if isinstance(targets, torch.Tensor) and len(targets) == len(split):
        return targets
    return of_sample


def _check_labels(dataset: Dataset, kind: str, labels: Tensor) -> None:
    import torch

    numbers = labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool
    if numbers or not labels.numel():
        return
    least, most = (int(value) for value in labels.aminmax())
    if least >= 0 and most < dataset.num_classes:
        return
    wrong = least if least < 0 else most
    first = int((labels == wrong).reshape(len(labels), -1).any(1).nonzero()[0])
    raise DataError(
        f"{dataset.name}: {kind} sample {first} has the label {wrong}; with "
        f"{dataset.num_classes} classes, labels are 0 to {dataset.num_classes - 1}"
    )
