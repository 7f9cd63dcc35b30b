"""A split whose batches loader processes make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_dcasgd.learning.data.dataset import Split, augments
from mpi_dcasgd.learning.loaders.messages import Request


class LoadedSplit:
    """A split that asks another process for its batches: the same bits as of the split itself.

    Args:
        name: ``train``, ``test`` or ``validation``.
        split: The rank's own, which is not read.
        submit: Asks for batches, and returns a function that waits for them.
        at_once: Batches that are made at the same time.
    """

    in_background = False
    """No thread is needed: what has begun goes on by itself."""

    def __init__(
        self,
        name: str,
        split: Split,
        submit: Callable[[Request], Callable[[], list[Any]]],
        at_once: int,
    ) -> None:
        self.augments = augments(split)
        self.at_once = at_once
        self._name = name
        self._length = len(split)
        self._submit = submit

    def __len__(self) -> int:
        return self._length

    def begin(
        self, parts: Sequence[NDArray[np.int64]], rng: np.random.Generator | None
    ) -> Callable[[], list[Any]]:
        """Begin to load batches that draw from one generator, one after the other.

        Returns:
            A function that waits for the batches and returns them.
        """
        return self._submit(Request(self._name, parts, rng))

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator | None) -> Any:
        return self.begin([indices], rng)()[0]
