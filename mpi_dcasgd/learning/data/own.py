"""From what a user's code returns as data to a split that serves batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, TensorDataset

from mpi_dcasgd.errors import DataError
from mpi_dcasgd.learning.data.dataset import Split
from mpi_dcasgd.learning.data.nests import NestSplit
from mpi_dcasgd.learning.data.samples import Collate, SampleSource, SampleSplit
from mpi_dcasgd.learning.nest import describe, tensors_of

_ALLOWED = (
    "a map-style data set (__len__ and __getitem__; a list of samples is one), or tensors of equal "
    "length, alone or in a tuple or a dictionary"
)


@dataclass(frozen=True)
class Loading:
    """Way in which samples become batches.

    Attributes:
        collate: From a list of samples to a batch.
        draws: Whether samples may draw random numbers in evaluation.
        device: Where tensors of a whole split are held.
    """

    collate: Collate
    draws: bool
    device: torch.device


def split_of(data: Any, name: str, loading: Loading) -> Split:
    """Make a split of what a user's code returned.

    Args:
        data: A data set, tensors, or a split.
        name: ``train``, ``test`` or ``validation``, for messages.
        loading: How samples become batches.

    Raises:
        DataError: It is something else, or empty.
    """
    if isinstance(data, TensorDataset):
        data = data.tensors
    if isinstance(data, (Tensor, np.ndarray, tuple, Mapping)):
        split: Split = _resident(data, name, loading.device)
    elif callable(getattr(data, "batch", None)) and hasattr(data, "__len__"):
        split = data
    elif isinstance(data, IterableDataset) or not _is_map_style(data):
        hint = "; samples must have numbers, so that a ticket names them" if _streams(data) else ""
        raise DataError(f"{name} data: got {_kind(data)}; allowed: {_ALLOWED}{hint}")
    else:
        source = SampleSource(data, loading.collate, name)
        split = SampleSplit(source, draws=loading.draws)
    if len(split) == 0:
        raise DataError(f"{name} data: empty; at least one sample is needed")
    return split


def check_alike(train: Split, other: Split, name: str) -> None:
    """Refuse test or validation tensors that are not shaped like those of the training data.

    Raises:
        DataError: They are not.
    """
    if not (isinstance(train, NestSplit) and isinstance(other, NestSplit)):
        return
    mine, theirs = (describe(_one(split)) for split in (train, other))
    if mine != theirs:
        raise DataError(f"{name} samples are {theirs}, but training samples are {mine}")


def _resident(data: Any, name: str, device: torch.device) -> NestSplit:
    nest = _as_tensors(data, name)
    tensors = tensors_of(nest)
    if not tensors or any(tensor.dim() == 0 for tensor in tensors):
        raise DataError(f"{name} data: got {describe(nest)}; allowed: {_ALLOWED}")
    lengths = [len(tensor) for tensor in tensors]
    if len(set(lengths)) > 1:
        raise DataError(
            f"{name} data: tensors of lengths {', '.join(map(str, lengths))}; the first dimension "
            "of each counts the samples, so all must be equal"
        )
    return NestSplit(nest, device)


def _as_tensors(data: Any, name: str) -> Any:
    if isinstance(data, Tensor):
        return data.detach()
    if isinstance(data, np.ndarray):
        try:
            return torch.from_numpy(np.ascontiguousarray(data))
        except TypeError as error:
            raise DataError(f"{name} data: an array of {data.dtype} is no tensor") from error
    if isinstance(data, Mapping):
        return {key: _as_tensors(inner, name) for key, inner in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(_as_tensors(inner, name) for inner in data))
    if isinstance(data, tuple):
        return tuple(_as_tensors(inner, name) for inner in data)
    raise DataError(f"{name} data: {_kind(data)} among the tensors; allowed: {_ALLOWED}")


def _one(split: NestSplit) -> Any:
    return split.batch(np.zeros(1, dtype=np.int64), None)


def _is_map_style(data: Any) -> bool:
    return hasattr(data, "__getitem__") and hasattr(data, "__len__")


def _streams(data: Any) -> bool:
    return isinstance(data, IterableDataset) or hasattr(data, "__iter__")


def _kind(data: Any) -> str:
    return "None" if data is None else type(data).__name__
