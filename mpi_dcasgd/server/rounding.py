"""Rounding of replies: a worker's snapshot becomes what the worker is sent.

It is done at the moment the reply is made, at once or, where the reply leaves in chunks while the
update goes on, chunk by chunk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from mpi_dcasgd.errors import NonFiniteError
from mpi_dcasgd.server.message import Message
from mpi_dcasgd.server.passage import Passage
from mpi_dcasgd.server.wire import TYPES, NarrowMessage, Wire, blocks_of

_LARGEST = 65504.0  # of float16


class ReplyRounding:
    """Rounds a worker's snapshot to what the worker is sent, at the moment it is sent.

    Args:
        wire: Form of the vectors.
        device: Of the snapshots.
        cuts: Elements at which all chunks but the first begin, of replies that leave in chunks.
    """

    def __init__(self, wire: Wire, device: torch.device, cuts: Sequence[int] = ()) -> None:
        self._wire = wire
        self._device = device
        self._pieces = [slice(*ends) for ends in pairwise((0, *cuts, wire.num_params))]
        self._spare: Tensor | None = None
        self._settled: Message | None = None  # chunk by chunk, by the update that made it

    def settle(self, worker: int, message: Message) -> None:
        """Round a reply's vector, and have its message carry it where it is a narrow one.

        Args:
            worker: Who is sent it.
            message: The reply.

        Raises:
            NonFiniteError: A weight is beyond what float16 holds.
        """
        settled, self._settled = self._settled is message, None
        if settled or self._wire.reply == "float32":
            return
        self._settle(worker, message, slice(0, self._wire.num_params))

    def along(self, passage: Passage, worker: int, message: Message) -> Passage:
        """Return a passage by which the reply's chunks are rounded before they leave.

        Args:
            passage: Of the worker's push, which is certain to be answered at once.
            worker: Who is sent the reply.
            message: The reply; once the passage is over, ``settle`` leaves it alone.
        """
        self._settled = None
        return passage if self._wire.reply == "float32" else _Along(self, passage, worker, message)

    def settle_chunk(self, worker: int, message: Message, chunk: int) -> None:
        """Round one chunk of a reply as ``settle`` does; in order, from the first."""
        self._settle(worker, message, self._pieces[chunk])
        if chunk == len(self._pieces) - 1:
            self._settled = message

    def _settle(self, worker: int, message: Message, piece: slice) -> None:
        precision = self._wire.reply
        mine = message if isinstance(message, NarrowMessage) else None
        narrow = self._memory() if mine is None else mine.narrow
        total = 0.0  # of finite numbers as small as float16's it is finite
        for few, block in zip(
            blocks_of(narrow[piece]), blocks_of(message.vector[piece]), strict=True
        ):
            few.copy_(block)
            block.copy_(few)
            if precision == "fp16":
                total += float(block.sum())
        if not math.isfinite(total):
            raise NonFiniteError(
                f"training diverged, or fp16 is too narrow for it: a weight that worker {worker} "
                f"was to be sent is beyond {_LARGEST:.0f}, the largest number of float16. Lower "
                "lr, or set wire.reply to bf16 or float32."
            )
        if mine is not None and piece.stop == self._wire.num_params:
            mine.carry_statistics()

    def _memory(self) -> Tensor:
        if self._spare is None:
            kind = TYPES[self._wire.reply]
            self._spare = torch.empty(self._wire.num_params, dtype=kind, device=self._device)
        return self._spare


class _Along:
    """Passage that rounds each chunk of the reply before it leaves."""

    def __init__(
        self, rounding: ReplyRounding, passage: Passage, worker: int, message: Message
    ) -> None:
        self._rounding = rounding
        self._passage = passage
        self._worker = worker
        self._message = message

    def arrive(self, chunk: int) -> bool:
        return self._passage.arrive(chunk)

    def arrive_all(self) -> None:
        self._passage.arrive_all()

    def leave(self, chunk: int) -> None:
        self._rounding.settle_chunk(self._worker, self._message, chunk)
        self._passage.leave(chunk)
