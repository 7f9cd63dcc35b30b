"""Buckets of a flat gradient, each summed over the ranks as soon as it is filled.

The backward pass computes the gradients of the last layers first. They travel while it computes
the others, as in Horovod's own optimizer and in PyTorch's DDP. A bucket is a stretch of the flat
vector, so nothing is gathered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mpi_dcasgd.drivers.reducers import Reducer
from mpi_dcasgd.learning.flat import FlatLayout

BUCKET_BYTES = 4 << 20
"""Size at which a bucket is full: some milliseconds on a fast network."""


class _Bucket(NamedTuple):
    """Fields ``first`` to ``last`` of a layout: elements ``begin`` to ``end``."""

    first: int
    last: int
    begin: int
    end: int


def split_in_buckets(layout: FlatLayout, bucket_bytes: int) -> list[_Bucket]:
    """Split the parameters' part of a vector into buckets, those that are filled first first.

    Groups have parameters of all layers side by side. No bucket crosses from one stretch into the
    next, and those that reach down to the first layers come last: else a handful of biases would
    hold up everything.
    """
    buckets: list[_Bucket] = []
    whole = 4 * layout.num_params <= bucket_bytes
    borders = set() if whole else {stretch.begin for stretch in layout.stretches}
    last, end = len(layout.params) - 1, layout.num_params
    for number in range(last, -1, -1):
        begin = layout.params[number].offset
        if 4 * (end - begin) >= bucket_bytes or number == 0 or begin in borders:
            buckets.append(_Bucket(number, last, begin, end))
            last, end = number - 1, begin
    place = {number: place for place, number in enumerate(layout.model_order)}

    def first_layer(bucket: _Bucket) -> int:
        return min(place.get(n, n) for n in range(bucket.first, bucket.last + 1))

    return sorted(buckets, key=first_layer, reverse=True)


class Buckets:
    """Sum of a vector over all ranks, bucket by bucket.

    Every rank begins the buckets in the same order, which ``torch.distributed`` needs, so one that
    is filled before its turn waits for it.

    Args:
        layout: Layout of the vector.
        vector: Vector whose parameters are replaced by their sum over all ranks.
        reducer: Sums over the ranks.
        dtype: Type in which elements travel, if not the vector's own.
        bucket_bytes: Size at which a bucket is full.
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
        """Note that a field of the vector holds this rank's share of the sum."""
        self._lacking[self._bucket_of[field]] -= 1
        while self._begun < len(self) and not self._lacking[self._begun]:
            self._begin()

    def filled_all(self) -> None:
        """Note that the whole vector does."""
        while self._begun < len(self):
            self._begin()

    def wait(self) -> None:
        """Wait until the vector is the sum."""
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
