"""Numbers in 16 bits: rounding of what travels, and the messages that carry it.

Gradients and weights may travel as bfloat16 or float16 (``WireSettings``). Both sides go on with
what came out of that, as float32: the server updates with the gradient as it was received, and a
worker's snapshot is the weights as it received them. So a rule that compares weights and snapshot
sees the very point at which the gradient was computed, and all drivers come to the same bits,
whether anything really travelled or not.

Rounding is to nearest, ties to even. Running statistics stay float32: they are few, a variance may
be beyond what float16 holds, and an average that moves by small steps would stand still.

The server's own weights, and everything else that it keeps, are float32 as ever.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpi_dcasgd.pages import zeros
from mpi_dcasgd.rules.block_ops import split
from mpi_dcasgd.server.header import HEADER_BYTES
from mpi_dcasgd.server.message import Message
from mpi_dcasgd.server.precision import Precision, WireSettings, message_bytes, stats_begin

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_BLOCK = 1 << 17
"""Elements that are converted to and fro at once, so that the way back is out of the cache."""

_TOP = 15
"""A scaled gradient's norm is below 2 to this power: half of what float16 holds, as a margin."""
_LAST = 126
"""Largest power of two of a scale: its inverse is a normal float32, too."""


def scale_of(precision: Precision, norm: float) -> float:
    """Return the power of two by which a gradient is multiplied before it is rounded.

    float16 holds numbers from 6e-8 to 65504, and gradients may be smaller and larger. No element is
    larger than the norm, which both sides know from the push's header. So a scale that brings the
    norm to between 16384 and 32768 lets nothing overflow, and elements down to 4e-9 of the norm
    keep all of float16's bits. bfloat16 has float32's range and is not scaled.

    Args:
        precision: Of the push.
        norm: Of the gradient, before rounding.

    Example:
        >>> scale_of("fp16", 1.0), scale_of("bf16", 1.0)
        (16384.0, 1.0)
    """
    if precision != "fp16" or not math.isfinite(norm) or norm <= 0:
        return 1.0
    exponent = _TOP - math.frexp(norm)[1]
    return math.ldexp(1.0, max(-_LAST, min(_LAST, exponent)))


def round_gradient(grad: Tensor, precision: Precision, norm: float) -> None:
    """Leave in a gradient what would be received of it.

    Args:
        grad: Shape (num_params,), without statistics; on any device.
        precision: Of the push.
        norm: Of the gradient, as its push says.

    Example:
        >>> grad = torch.tensor([1.0, 1.001])
        >>> round_gradient(grad, "bf16", 1.4)
        >>> grad.tolist()
        [1.0, 1.0]
    """
    if precision == "float32":
        return
    scale, kind = scale_of(precision, norm), TYPES[precision]
    for block in blocks_of(grad):
        if scale == 1.0:
            block.copy_(block.to(kind))
        else:
            block.copy_(block.mul(scale).to(kind)).mul_(1 / scale)


@dataclass(frozen=True)
class Wire:
    """Form of the vectors of one job on their way between workers and server.

    Attributes:
        push, reply: What gradients and weights are rounded to.
        num_params: Elements up to the statistics.
        num_stats: Elements of the statistics.
    """

    push: Precision
    reply: Precision
    num_params: int
    num_stats: int = 0

    @classmethod
    def of(cls, settings: WireSettings | None, num_params: int, num_stats: int = 0) -> Wire:
        """Make the form that a job's settings ask for; float32 without any."""
        settings = settings or WireSettings()
        return cls(settings.push, settings.reply, num_params, num_stats)

    @property
    def size(self) -> int:
        """Elements of a vector."""
        return self.num_params + self.num_stats

    @property
    def push_bytes(self) -> int:
        """Bytes of a push."""
        return message_bytes(self.push, self.num_params, self.num_stats)

    @property
    def reply_bytes(self) -> int:
        """Bytes of a reply."""
        return message_bytes(self.reply, self.num_params, self.num_stats)

    def push_message(self, *, pinned: bool = False, vector: Tensor | None = None) -> Message:
        """Make a message that can carry a push; arguments as of ``NarrowMessage``."""
        return self._message(self.push, pinned, vector)

    def reply_message(self, *, pinned: bool = False, vector: Tensor | None = None) -> Message:
        """Make a message that can carry a reply; arguments as of ``NarrowMessage``."""
        return self._message(self.reply, pinned, vector)

    def _message(self, precision: Precision, pinned: bool, vector: Tensor | None) -> Message:
        if precision == "float32":
            return Message(self.size, pinned=pinned)
        return NarrowMessage(
            self.num_params, self.num_stats, precision, pinned=pinned, vector=vector
        )


class NarrowMessage(Message):
    """Message whose parameters travel in 16 bits: header, parameters, statistics in float32.

    Args:
        num_params: Elements up to the statistics.
        num_stats: Elements of the statistics.
        precision: ``bf16`` or ``fp16``.
        pinned: Whether to use page-locked memory, for staging to and from a GPU.
        vector: Where the numbers are as float32, shape (num_params + num_stats,), or empty if
            ``pack`` and ``unpack`` are always told; memory of the message's own if None.

    Attributes:
        narrow: The parameters as they travel, shape (num_params,).
        stats: The statistics likewise, shape (num_stats,), float32.

    Example:
        >>> sent, received = (NarrowMessage(2, 1, "bf16") for _ in range(2))
        >>> _ = sent.vector.copy_(torch.tensor([1.001, 2.0, 3.001]))
        >>> sent.pack()
        >>> received.raw[:] = sent.raw
        >>> received.unpack()
        >>> received.vector.tolist()
        [1.0, 2.0, 3.000999927520752]
    """

    def __init__(
        self,
        num_params: int,
        num_stats: int,
        precision: Precision,
        *,
        pinned: bool = False,
        vector: Tensor | None = None,
    ) -> None:
        size = num_params + num_stats
        super().__init__(size, shared=zeros(size) if vector is None else vector)
        words = message_bytes(precision, num_params, num_stats) // 4
        self._storage = (
            torch.zeros(words, dtype=torch.int32, pin_memory=True)
            if pinned
            else zeros(words, torch.int32)
        )
        self._raw = self._storage.numpy()
        self._header = self._raw[: HEADER_BYTES // 4].data.cast("B")
        self._precision: Precision = precision
        self._num_params = num_params
        numbers = self._storage[HEADER_BYTES // 4 :]
        self.narrow = numbers.view(TYPES[precision])[:num_params]
        self.stats = numbers[stats_begin(precision, num_params) // 4 :].view(torch.float32)

    @property
    def body(self) -> NDArray[np.int32]:
        return self.raw[HEADER_BYTES // 4 :]

    @property
    def number_bytes(self) -> int:
        return self.narrow.element_size()

    def pack(self, norm: float = 0.0, source: Tensor | None = None) -> None:
        """Write what is to travel.

        Args:
            norm: Of a gradient; 0 for weights, which are not scaled.
            source: The numbers, on any device; those of ``vector`` if None.
        """
        source = self.vector if source is None else source
        numbers, stats = source[: self._num_params], source[self._num_params :]
        scale = scale_of(self._precision, norm)
        if source.device.type != "cpu":  # half of the bytes on that way, too
            self.narrow.copy_(numbers.mul(scale).to(self.narrow.dtype), non_blocking=True)
        elif scale == 1.0:
            self.narrow.copy_(numbers)
        else:
            for few, block in zip(blocks_of(self.narrow), blocks_of(numbers), strict=True):
                few.copy_(block.mul(scale))
        self.stats.copy_(stats, non_blocking=True)

    def carry_statistics(self) -> None:
        """Write the statistics alone, where the parameters have been written already."""
        self.stats.copy_(self.vector[self._num_params :])

    def read_gradient(self, norm: float) -> Tensor:
        self.unpack(norm)
        return self.vector

    def unpack(self, norm: float = 0.0, target: Tensor | None = None) -> None:
        """Read what has come.

        Args:
            norm: Of a gradient, as its header says; 0 for weights.
            target: Where to write it, on any device; to ``vector`` if None.
        """
        target = self.vector if target is None else target
        self._widen(self.narrow, target[: self._num_params], norm)
        target[self._num_params :].copy_(self.stats, non_blocking=True)

    def read_chunk(self, begin: int, end: int) -> None:
        border = self._num_params
        self._widen(self.narrow[begin:end], self.vector[begin : min(end, border)], self.grad_norm)
        if end >= border:
            self.vector[border:].copy_(self.stats)

    def _widen(self, narrow: Tensor, target: Tensor, norm: float) -> None:
        if target.device.type != "cpu":
            narrow = narrow.to(target.device, non_blocking=True)
        scale = scale_of(self._precision, norm)
        for block, few in zip(blocks_of(target), blocks_of(narrow), strict=True):
            block.copy_(few)
            if scale != 1.0:
                block.mul_(1 / scale)


def blocks_of(vector: Tensor) -> Sequence[Tensor]:
    """Cut a vector on the CPU into pieces that a cache holds."""
    whole = vector.device.type != "cpu" or vector.numel() <= _BLOCK
    return (vector,) if whole else split(vector, _BLOCK)
