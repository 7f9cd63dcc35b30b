"""From what a user's function returned to a data set, its sizes found out where it is silent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset, default_collate

from mpi_dcasgd.counts import is_whole, no_whole
from mpi_dcasgd.errors import DataError, did_you_mean
from mpi_dcasgd.learning.data.dataset import Dataset, Split
from mpi_dcasgd.learning.data.nests import NestSplit
from mpi_dcasgd.learning.data.own import Loading, check_alike, split_of
from mpi_dcasgd.learning.nest import tensors_of
from mpi_dcasgd.messages import shown

_SPLITS = ("train", "test", "validation")
_KEYS = (*_SPLITS, "num_classes", "input_shape", "class_names")
_ALLOWED = (
    "(train, test), (train, test, validation), or a mapping of train, test and, if need be, "
    f"{', '.join(_KEYS[2:])}"
)


def dataset_of(returned: Any, name: str, device: torch.device) -> Dataset:
    """Make a data set of what a user's function returned.

    Args:
        returned: ``(train, test)``, ``(train, test, validation)`` or a mapping; each split as a
            task may return it (``learning.data.own.split_of``).
        name: Of the data set.
        device: Where tensors of a whole split are held.

    Raises:
        DataError: It is something else, a split is empty, a label is out of range, or the number
            of classes cannot be found out.
    """
    parts = _parts(returned)
    given = {key: parts[key] for key in _SPLITS if parts.get(key) is not None}
    loading = Loading(default_collate, True, device)
    splits = {key: split_of(data, key, loading) for key, data in given.items()}
    for key, split in splits.items():
        check_alike(splits["train"], split, key)
    sample = splits["train"].batch(np.zeros(1, dtype=np.int64), None)
    targets = {key: _targets(given[key], split) for key, split in splits.items()}
    names = _names(parts, given["train"])
    num_classes = _whole(parts, "num_classes", 1)
    if num_classes is None:
        num_classes = len(names) if names else _count(given["train"], targets, sample)
    if names and len(names) != num_classes:
        raise DataError(f"{len(names)} class_names for num_classes {num_classes}; give as many")
    for key, labels in targets.items():
        _check_labels(key, labels, num_classes)
    return Dataset(
        name=name,
        train=splits["train"],
        test=splits["test"],
        validation=splits.get("validation"),
        num_classes=num_classes,
        input_shape=_input_shape(parts, sample),
        class_names=names or tuple(str(number) for number in range(num_classes)),
    )


def _parts(returned: Any) -> dict[str, Any]:
    if isinstance(returned, Mapping):
        unknown = [key for key in returned if key not in _KEYS]
        if unknown:
            hint = did_you_mean(str(unknown[0]), _KEYS)
            raise DataError(f"returned the key {unknown[0]!r}{hint}; allowed: {', '.join(_KEYS)}")
        missing = [key for key in ("train", "test") if returned.get(key) is None]
        if missing:
            raise DataError(f"returned no {' and no '.join(missing)} data; allowed: {_ALLOWED}")
        return dict(returned)
    if isinstance(returned, tuple) and len(returned) in (2, 3):
        if all(isinstance(data, (Tensor, np.ndarray)) for data in returned):
            raise DataError(
                f"returned {len(returned)} tensors, which are no pairs of inputs and targets; "
                "return ((train inputs, train targets), (test inputs, test targets))"
            )
        return dict(zip(_SPLITS, returned, strict=False))
    seen = f"a tuple of {len(returned)}" if isinstance(returned, tuple) else type(returned).__name__
    raise DataError(f"returned {seen}; allowed: {_ALLOWED}")


def _targets(data: Any, split: Split) -> Tensor | None:
    """All targets of a split, if they lie in memory."""
    if isinstance(split, NestSplit):
        nest = split.nest
        pair = isinstance(nest, tuple) and len(nest) == 2 and isinstance(nest[1], Tensor)
        return nest[1] if pair else None
    listed = _attribute(data, "targets")
    if not isinstance(listed, Sized) or len(listed) != len(split):
        return None
    try:
        return torch.as_tensor(listed)
    except (TypeError, ValueError, RuntimeError):
        return None


def _names(parts: Mapping[str, Any], train: Any) -> tuple[str, ...]:
    """The names of the classes: given, or known to the data set; none if nobody knows them."""
    names = parts.get("class_names")
    if names is None and parts.get("num_classes") is None:
        names = _attribute(train, "classes")
    if names is None:
        return ()
    if isinstance(names, str) or not isinstance(names, (list, tuple)):
        raise DataError(f"class_names: got {type(names).__name__}; allowed: a list of names")
    return tuple(str(name) for name in names)


def _count(train: Any, targets: Mapping[str, Tensor | None], sample: Any) -> int:
    """The number of classes, or of numbers to be predicted where targets are no labels."""
    number = _attribute(train, "num_classes")
    if is_whole(number):
        return int(number)
    known = [labels for labels in targets.values() if labels is not None]
    pair = isinstance(sample, (tuple, list)) and len(sample) == 2
    one = sample[1] if pair and isinstance(sample[1], Tensor) else None
    if one is not None and one.is_floating_point():
        return math.prod(one.shape[1:])
    if known and targets["train"] is not None:
        return max(int(labels.max()) for labels in known) + 1
    what = "samples are no pairs of inputs and targets" if one is None else "it has no attribute"
    more = "" if one is None else " targets, classes or num_classes"
    raise DataError(
        f"the number of classes is not known: {what}{more}; return it beside the data: "
        '{"train": ..., "test": ..., "num_classes": 10}'
    )


def _input_shape(parts: Mapping[str, Any], sample: Any) -> tuple[int, ...]:
    shape = parts.get("input_shape")
    if shape is None:
        pair = isinstance(sample, (tuple, list)) and len(sample) == 2
        return tuple(tensors_of(sample[0] if pair else sample)[0].shape[1:])
    if not isinstance(shape, (tuple, list)) or not all(map(is_whole, shape)):
        raise DataError(f"input_shape: got {shape!r}; allowed: sizes, as in (1, 28, 28)")
    return tuple(map(int, shape))


def _check_labels(name: str, labels: Tensor | None, num_classes: int) -> None:
    whole = labels is not None and labels.dim() == 1 and not labels.is_floating_point()
    if labels is None or not whole or labels.dtype == torch.bool:
        return
    wrong = ((labels < 0) | (labels >= num_classes)).nonzero()
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{name} sample {first} has the label {int(labels[first])}; with {num_classes} classes "
            f"labels are 0 to {num_classes - 1}"
        )


def _attribute(data: Any, name: str) -> Any:
    """An attribute of a data set, or of the one that it is a part of."""
    for _ in range(5):
        if isinstance(data, (Tensor, TensorDataset, tuple, Mapping)) or data is None:
            return None
        if name != "targets" or not hasattr(data, "indices"):
            found = getattr(data, name, None)
            if found is not None:
                return found
        elif (whole := _attribute(data.dataset, name)) is not None:
            return torch.as_tensor(whole)[torch.as_tensor(data.indices)]
        data = getattr(data, "dataset", None)
    return None


def _whole(parts: Mapping[str, Any], key: str, least: int) -> int | None:
    value = parts.get(key)
    if value is None or is_whole(value, least):
        return None if value is None else int(value)
    raise DataError(no_whole(key, shown(value), least))
