"""Base of tasks that work with any model and data set of a job's sections."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from mpi_dcasgd.learning.data.dataset import Dataset, Facts
from mpi_dcasgd.learning.data.load import describe, load_dataset
from mpi_dcasgd.learning.data.source import DataSource
from mpi_dcasgd.learning.models.base import ModelSource
from mpi_dcasgd.learning.models.factory import build_model
from mpi_dcasgd.learning.task import Task

if TYPE_CHECKING:
    from torch import nn

    from mpi_dcasgd.learning.data.dataset import Split


class SectionTask(Task):
    """A task whose model and data are those of the job's sections ``model`` and ``data``.

    Args:
        model: The section of that name.
        data: The section of that name.
    """

    def __init__(self, model: ModelSource, data: DataSource) -> None:
        self.model_source = model
        self.data_source = data

    @cached_property
    def dataset(self) -> Dataset:
        """The data, loaded when they are first asked for."""
        return load_dataset(self.data_source, self.seed, self.device)

    @property
    def sizes(self) -> Facts:
        """Sizes of the data, without loading them if they are not loaded."""
        if "dataset" in self.__dict__:
            return Facts.of(self.dataset)
        return describe(self.data_source)

    def model(self) -> nn.Module:
        sizes = self.sizes
        return build_model(self.model_source, sizes.input_shape, sizes.num_classes)

    def train_data(self) -> Split:
        return self.dataset.train

    def test_data(self) -> Split:
        return self.dataset.test

    def validation_data(self) -> Split | None:
        return self.dataset.validation


def first_sample(split: Split) -> Any:
    """Return the batch that is the first sample of a split, to see what it is made of."""
    import numpy as np

    return split.batch(np.zeros(1, dtype=np.int64), None)
