"""A flat gradient in buckets, each of them summed over the ranks as soon as it is filled.

The backward pass finds the gradients of the last layers first. While it goes on with the others,
these are on their way already, as in Horovod's own optimizer and in PyTorch's DDP. A bucket is a
stretch of the flat vector, so nothing is gathered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mpi_dcasgd.drivers.reducers import Reducer
from mpi_dcasgd.learning.flat import FlatLayout

BUCKET_BYTES = 4 << 20
"""From so many bytes on a bucket is full: some milliseconds on a fast network."""


class _Bucket(NamedTuple):
    """Fields ``first`` to ``last`` of a layout: elements ``begin`` to ``end``."""

    first: int
    last: int
    begin: int
    end: int


def split_in_buckets(layout: FlatLayout, bucket_bytes: int) -> list[_Bucket]:
    """The parameters' part of a vector in buckets, the last fields first."""
    buckets: list[_Bucket] = []
    last, end = len(layout.params) - 1, layout.num_params
    for number in range(last, -1, -1):
        begin = layout.params[number].offset
        if 4 * (end - begin) >= bucket_bytes or number == 0:
            buckets.append(_Bucket(number, last, begin, end))
            last, end = number - 1, begin
    return buckets


class Buckets:
    """Sums a vector over all ranks, bucket by bucket.

    Every rank begins the buckets in the same order, which ``torch.distributed`` needs, so one that
    is filled before its turn waits for it.

    Args:
        layout: Of the vector.
        vector: Its part of the parameters is replaced by the sum over all ranks.
        reducer: Sums.
        dtype: What travels, if it is not the vector's own.
        bucket_bytes: From how many on a bucket is full.
    """

    def __init__(
        self,
        layout: FlatLayout,
        vector: Tensor,
        reducer: Reducer,
        dtype: torch.dtype | None = None,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        self._vector = vector
        self._reducer = reducer
        self._dtype = dtype
        self._buckets = split_in_buckets(layout, bucket_bytes)
        self._bucket_of = {
            field: number
            for number, bucket in enumerate(self._buckets)
            for field in range(bucket.first, bucket.last + 1)
        }
        self._waits: list[Callable[[], None]] = []
        self._clear()

    def __len__(self) -> int:
        return len(self._buckets)

    def filled(self, field: int) -> None:
        """A field of the vector is what this rank adds to the sum."""
        self._lacking[self._bucket_of[field]] -= 1
        while self._begun < len(self) and not self._lacking[self._begun]:
            self._begin()

    def filled_all(self) -> None:
        """The whole vector is."""
        while self._begun < len(self):
            self._begin()

    def wait(self) -> None:
        """Return when the vector is the sum."""
        for wait in self._waits:
            wait()
        self._clear()

    def _clear(self) -> None:
        self._lacking = [bucket.last - bucket.first + 1 for bucket in self._buckets]
        self._begun = 0
        self._waits.clear()

    def _begin(self) -> None:
        number = self._begun
        bucket = self._buckets[number]
        mine = self._vector[bucket.begin : bucket.end]
        sent = mine if self._dtype is None else mine.to(self._dtype)
        wait = self._reducer.start(sent, f"gradient.{number}")

        def done() -> None:
            wait()
            if sent is not mine:
                mine.copy_(sent)

        self._waits.append(done)
        self._begun += 1
