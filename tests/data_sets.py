"""Words for tests of data sets: make, load and read them whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpi_dcasgd.learning.data import DATA, Dataset, DataSource, Split, describe, load_dataset


def source(name: str, **settings: Any) -> DataSource:
    return DATA.find(name)(name=name, **settings)


def load(name: str, seed: int = 0, **settings: Any) -> Dataset:
    return load_dataset(source(name, **settings), seed)


def whole(split: Split, seed: int | None = None) -> tuple[Tensor, Tensor]:
    """All samples of a split, augmented from a seed or not at all."""
    rng = None if seed is None else np.random.default_rng(seed)
    return split.batch(np.arange(len(split)), rng)


def facts_agree(
    dataset: Dataset,
    settings: DataSource,
    inputs_are: torch.dtype = torch.float32,
    targets_are: torch.dtype = torch.int64,
) -> None:
    """Check that the sizes which are told without loading are those of what is loaded."""
    facts = describe(settings)
    assert facts.num_train == len(dataset.train)
    assert facts.num_test == len(dataset.test)
    assert facts.num_validation == (0 if dataset.validation is None else len(dataset.validation))
    assert facts.num_classes == dataset.num_classes == len(dataset.class_names)
    assert facts.input_shape == dataset.input_shape
    inputs, targets = dataset.test.batch(np.arange(2), None)
    assert inputs.shape == (2, *facts.input_shape)
    assert inputs.is_contiguous()
    assert inputs.dtype == inputs_are
    assert targets.dtype == targets_are
