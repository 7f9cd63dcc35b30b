"""A split of a map-style data set: its samples are fetched one by one, and collated."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mpi_dcasgd.errors import DataError, UserError
from mpi_dcasgd.learning.guard import failed
from mpi_dcasgd.learning.nest import tensors_of
from mpi_dcasgd.wording import counted

Collate = Callable[[list[Any]], Any]

_NAMED = 8
"""Samples of a batch that a message names."""

_EVALUATION = 0x7E57
"""Key of the seeds with which samples are fetched where no ticket has any."""


class Seeds(NamedTuple):
    """Seeds for whatever a transform may draw from."""

    python: int
    numpy: int
    torch: int

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Seeds:
        """Draw them from a ticket's own source of randomness."""
        return cls(*(int(number) for number in rng.integers(0, 2**32, 3)))

    def plant(self) -> None:
        """Seed the process's global generators: Python's, NumPy's and PyTorch's on the CPU."""
        random.seed(self.python)
        np.random.seed(self.numpy)
        torch.default_generator.manual_seed(self.torch)


class SampleSource:
    """Samples of a map-style data set, made into batches.

    Args:
        dataset: ``__len__`` and ``__getitem__``, or ``__getitems__`` for several at once.
        collate: From a list of samples to a batch.
        name: What messages call it: ``train``, ``test`` or ``validation``.
    """

    def __init__(self, dataset: Any, collate: Collate, name: str) -> None:
        self.dataset = dataset
        self.collate = collate
        self.name = name

    def __len__(self) -> int:
        return len(self.dataset)

    @torch.no_grad()
    def fetch(self, indices: NDArray[np.int64], seeds: Seeds | None) -> Any:
        """Make a batch; equal arguments give equal bits, in any process.

        Args:
            indices: Sample numbers, shape (n,).
            seeds: Planted before the first sample; None to leave the generators alone.

        Returns:
            A nest of tensors on the CPU.

        Raises:
            DataError: A sample cannot be had, or the samples cannot be collated.
        """
        if seeds is not None:
            seeds.plant()
        samples = self._samples([int(index) for index in indices])
        try:
            batch = self.collate(samples)
        except UserError:
            raise
        except Exception as error:
            raise DataError(
                f"{self.name} samples {_listed(indices)} cannot be collated into a batch: "
                f"{_reason('collate', error)}; samples of different sizes or kinds need a collate "
                "of the task's own"
            ) from error
        if not tensors_of(batch):
            raise DataError(
                f"{self.name}: a batch of {counted(len(indices), 'sample')} is "
                f"{type(batch).__name__} without any tensor; "
                "let samples be tensors, numbers or arrays, or collate them into some"
            )
        return batch

    def _samples(self, numbers: list[int]) -> list[Any]:
        together = getattr(self.dataset, "__getitems__", None)
        if callable(together):
            try:
                return list(together(numbers))
            except UserError:
                raise
            except Exception as error:
                reason = _reason(f"{type(self.dataset).__name__}.__getitems__", error)
                raise DataError(f"{self.name} samples {numbers}: {reason}") from error
        samples = []
        for number in numbers:
            try:
                samples.append(self.dataset[number])
            except UserError:
                raise
            except Exception as error:
                reason = _reason(f"{type(self.dataset).__name__}.__getitem__", error)
                raise DataError(f"{self.name} sample {number}: {reason}") from error
        return samples


class SampleSplit:
    """A split whose batches are fetched where they are needed, by the process that needs them.

    Args:
        source: Of the samples.
        draws: Whether a sample may draw random numbers where no ticket seeds them: in evaluation.
    """

    augments = True
    in_background = False
    """Not on a thread: transforms draw from the process's generators, which dropout draws from.

    ``learning.loaders`` loads the samples in other processes, which have generators of their own.
    """

    def __init__(self, source: SampleSource, *, draws: bool) -> None:
        self.source = source
        self._draws = draws

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator | None) -> Any:
        return self.source.fetch(indices, seeds_of(indices, rng, draws=self._draws))


def seeds_of(
    indices: NDArray[np.int64], rng: np.random.Generator | None, *, draws: bool
) -> Seeds | None:
    """Draw a ticket's seeds, or those that an evaluation always has, or none if none are used."""
    if rng is None:
        if not draws:
            return None
        rng = np.random.default_rng([_EVALUATION, int(indices[0])])
    return Seeds.drawn(rng)


def _listed(indices: NDArray[np.int64]) -> str:
    numbers = ", ".join(str(index) for index in indices[:_NAMED])
    return f"{numbers} and {len(indices) - _NAMED} more" if len(indices) > _NAMED else numbers


def _reason(what: str, error: Exception) -> str:
    return failed(what, error).problems[0].replace("raised", f"{what} raised", 1)
