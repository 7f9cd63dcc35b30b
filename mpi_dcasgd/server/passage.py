"""Passage of one push through the server chunk by chunk, and what is needed to take it back.

The update of a chunk can be made before the whole push is here. Nobody else sees that: the update
is one call, and if the rest of the push does not come, all that it has written is put back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor

from mpi_dcasgd.errors import DcasgdError


class BrokenOffError(DcasgdError):
    """The rest of a push does not come, at least for now; it has changed nothing."""


class Passage(Protocol):
    """Driver's side of a push in chunks."""

    def arrive(self, chunk: int) -> bool:
        """Wait until a chunk of the push is here.

        Returns:
            Whether all the others are here, too, so that nothing can go wrong any more.

        Raises:
            BrokenOffError: It does not come.
        """
        ...

    def arrive_all(self) -> None:
        """Wait until the whole push is here.

        Raises:
            BrokenOffError: It does not come.
        """
        ...

    def leave(self, chunk: int) -> None:
        """Take note that a chunk of the worker's snapshot is as the reply is to have it."""
        ...


class Undo:
    """Copies of what an update is about to write, to put it back.

    Its memory is allocated when it is first needed, and used again.

    Example:
        >>> import torch
        >>> weights, undo = torch.ones(2), Undo()
        >>> undo.keep([weights])
        >>> _ = weights.fill_(7.0)
        >>> undo.restore()
        >>> weights
        tensor([1., 1.])
    """

    def __init__(self) -> None:
        self._room: dict[tuple[int, int], Tensor] = {}
        self._kept: list[tuple[Tensor, Tensor]] = []

    def keep(self, vectors: Iterable[Tensor]) -> None:
        """Copy vectors that are about to be written."""
        for vector in vectors:
            place = len(self._kept), vector.numel()
            room = self._room.get(place)
            if room is None:
                room = self._room[place] = vector.new_empty(vector.numel())
            self._kept.append((vector, room.copy_(vector)))

    def restore(self) -> None:
        """Put back all that was kept."""
        for vector, copy in self._kept:
            vector.copy_(copy)
        self._kept.clear()

    def forget(self) -> None:
        """Need nothing of it any more."""
        self._kept.clear()
