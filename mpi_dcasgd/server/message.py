"""Messages between workers and server: a fixed header before a flat float32 vector, in one buffer.

Header, sixteen little words of 8 bytes (128 bytes, so that the vector starts on a cache line)::

    word  worker -> server (push)            server -> worker (reply)
    0     PUSH                               WORK, AFRESH, STOP or AGAIN
    1     version the gradient belongs to    version of the weights; of AGAIN a number of chunks
    2     ticket                             number of tickets granted, n
    3     samples in the ticket              tickets granted: words 3 .. 3 + n - 1
    4     loss, as a float64                 ...
    5     gradient norm, as a float64
    6     nanoseconds computing
    7     nanoseconds waiting for the reply before this push
    8     nanoseconds waiting for data
    9     whether the statistics are finite:
          1 yes, 2 no, 0 unknown

The vector is ``[gradient | statistics]`` one way and ``[weights | statistics]`` the other.
Nothing is pickled, and sender and receiver must have the same byte order.

Where several servers share a model, each has its stretch of the vector: the leader's comes behind
the header, and those of the others travel without any. Parameters and gradients may travel in 16
bits (``wire``).

Where sender and receiver are on one host, the vector may lie in memory that both have in common.
The message is then the header alone, and says that the vector is complete.

A long vector may travel in chunks, messages of their own with the tag ``CHUNK``: those of a push
after its header, those of a reply before it. AGAIN says that the first of them come once more.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpi_dcasgd.errors import ProtocolError
from mpi_dcasgd.pages import zeros
from mpi_dcasgd.server.header import HEADER_BYTES, MAX_GRANTS

_CPU = torch.device("cpu")

# Every push and reply is written and read once, beside updates that may take 50 microseconds: a
# call of struct takes a third of the time of as many NumPy scalars.
_WORD = struct.Struct("=q")
_PUSH = struct.Struct("=4q2d")
_SPENT = struct.Struct("=3q")
_SPENT_AT = _PUSH.size
_STATS_FINITE = 9
_FINITE = (None, True, False)
_REPLIES = [struct.Struct(f"={3 + count}q") for count in range(MAX_GRANTS + 1)]


class Kind(IntEnum):
    """Kind of a message, in word 0. Zero is none of them, so an unwritten buffer is detected."""

    PUSH = 1
    WORK = 2
    STOP = 3
    AFRESH = 4
    """As WORK, and what was granted before is others' by now."""
    AGAIN = 5
    """No reply yet: chunks of it were sent too early, and come again."""


_KINDS = {int(kind): kind for kind in Kind}


class Tag(IntEnum):
    """MPI tag of a message between ranks; those between servers are ``orders.CrewTag``."""

    PUSH = 1
    REPLY = 2
    END = 3
    HELLO = 4
    CHUNK = 5
    # Start-up (drivers.meeting)
    ARRIVE = 21
    ARRIVED = 22
    # A worker that fails or asks (drivers.notes)
    NOTE = 31
    HERE = 32
    # Ranks of a synchronous run that wait for others (drivers.group_watch)
    ASK = 41
    ANSWER = 42
    FOUND = 43
    TOLD = 44


class Message:
    """Buffer of one message, with typed views of its header and its vector.

    Args:
        size: Elements of the vector.
        device: Device of the vector. Off the CPU the header stays behind on it, so there is no
            single buffer to send: such messages are for drivers that stay within a process.
        pinned: Whether to use page-locked memory, for staging to and from a GPU.
        dtype: Type of the vector. Weights travel as float32; float64 serves to check a rule's
            mathematics within a process.
        shared: The vector itself, shape (size,), in memory that the other side has, too; None for
            memory of this message's own, behind the header.

    Attributes:
        vector: Shape (size,), 64-byte aligned.
    """

    def __init__(
        self,
        size: int,
        *,
        device: torch.device = _CPU,
        pinned: bool = False,
        dtype: torch.dtype = torch.float32,
        shared: Tensor | None = None,
    ) -> None:
        on_cpu = device.type == "cpu"
        behind = on_cpu and shared is None
        words = (HEADER_BYTES + (size * dtype.itemsize if behind else 0)) // 4
        locked = (
            torch.zeros(words, dtype=torch.int32, pin_memory=True) if pinned and behind else None
        )
        self._storage = zeros(words, torch.int32) if locked is None else locked
        self._raw: NDArray[np.int32] | None = self._storage.numpy() if on_cpu else None
        header = self._storage.numpy()[: HEADER_BYTES // 4]
        self._header = header.data.cast("B")
        if shared is not None:
            self.vector: Tensor = shared
        elif on_cpu:
            self.vector = self._storage[HEADER_BYTES // 4 :].view(dtype)
        else:
            self.vector = torch.zeros(size, device=device, dtype=dtype)

    @property
    def raw(self) -> NDArray[np.int32]:
        """The bytes to send: header and vector, or the header alone if the vector is shared.

        As int32, so that no library rounds the header.
        """
        if self._raw is None:
            raise ProtocolError("a message whose vector is not on the CPU cannot be sent")
        return self._raw

    @property
    def number_bytes(self) -> int:
        """Bytes that a parameter takes on its way."""
        return self.vector.element_size()

    @property
    def body(self) -> NDArray[np.int32]:
        """The bytes that travel behind a header, for a server that has them without any."""
        return self.vector.view(torch.int32).numpy()

    def piece(self, begin: int, end: int) -> NDArray[np.int32]:
        """Return the bytes of neighbouring elements, for a server that has those alone.

        Args:
            begin: First element; the header goes before the very first.
            end: The element after the last.
        """
        header = HEADER_BYTES // 4
        return self.raw[header + begin if begin else 0 : header + end]

    def parts(self, cuts: Sequence[int]) -> list[NDArray[np.int32]]:
        """Return the header, and the vector's chunks, as messages of their own.

        Args:
            cuts: Elements at which all chunks but the first begin, in order.
        """
        words = self.number_bytes / self.raw.itemsize
        ends = [HEADER_BYTES // 4 + int(cut * words) for cut in (0, *cuts)]
        return [self.raw[begin:end] for begin, end in pairwise((0, *ends, len(self.raw)))]

    def _word(self, place: int) -> int:
        found: int = _WORD.unpack_from(self._header, 8 * place)[0]
        return found

    @property
    def kind(self) -> Kind:
        return _kind(self._word(0))

    @property
    def version(self) -> int:
        return self._word(1)

    def write_reply(self, kind: Kind, version: int, tickets: Sequence[int]) -> None:
        """Write the header of a reply; the caller writes the vector.

        Raises:
            ProtocolError: The header has no room for so many tickets.
        """
        count = len(tickets)
        if count > MAX_GRANTS:
            raise ProtocolError(f"{count} tickets granted at once; {MAX_GRANTS} fit")
        _REPLIES[count].pack_into(self._header, 0, kind, version, count, *tickets)

    def make_afresh(self) -> None:
        """Have a reply of new work say that what was granted before is others' by now."""
        _WORD.pack_into(self._header, 0, Kind.AFRESH)

    @property
    def tickets(self) -> tuple[int, ...]:
        """Tickets granted by a reply."""
        _, _, count = _REPLIES[0].unpack_from(self._header)
        if not 0 <= count <= MAX_GRANTS:
            raise ProtocolError(f"{count} tickets granted at once; {MAX_GRANTS} fit")
        words: tuple[int, ...] = _REPLIES[count].unpack_from(self._header)
        return words[3:]

    def write_push(
        self,
        *,
        version: int,
        ticket: int,
        samples: int,
        loss: float,
        grad_norm: float,
        compute_ns: int = 0,
        wait_ns: int = 0,
        data_ns: int = 0,
        stats_finite: bool | None = None,
    ) -> None:
        """Write the header of a push."""
        _WORD.pack_into(self._header, 8 * _STATS_FINITE, _FINITE.index(stats_finite))
        _PUSH.pack_into(self._header, 0, Kind.PUSH, version, ticket, samples, loss, grad_norm)
        _SPENT.pack_into(self._header, _SPENT_AT, compute_ns, wait_ns, data_ns)

    def read_gradient(self, norm: float) -> Tensor:
        """Return the vector of a push that has come, as float32.

        Args:
            norm: Of the gradient, as the header of the push says.
        """
        return self.vector

    def read_chunk(self, begin: int, end: int) -> None:
        """Have the vector carry neighbouring elements of a push that have come, as float32.

        Args:
            begin: First element.
            end: The element after the last; the statistics come with the last parameter.
        """

    def read_push(self) -> tuple[Kind, int, int, int, float, float]:
        """Return kind, version, ticket, samples, loss and norm of a push."""
        kind, version, ticket, samples, loss, norm = _PUSH.unpack_from(self._header)
        return _kind(kind), version, ticket, samples, loss, norm

    @property
    def ticket(self) -> int:
        return self._word(2)

    @property
    def samples(self) -> int:
        return self._word(3)

    @property
    def loss(self) -> float:
        return self.read_push()[4]

    @property
    def grad_norm(self) -> float:
        return self.read_push()[5]

    @property
    def stats_finite(self) -> bool | None:
        """True if the statistics of a push are finite; None if the worker did not look."""
        word = self._word(_STATS_FINITE)
        return _FINITE[word] if 0 <= word < len(_FINITE) else None

    @property
    def spent_ns(self) -> tuple[int, int, int]:
        """Nanoseconds that the worker spent computing, waiting for weights, waiting for data."""
        compute, wait, data = _SPENT.unpack_from(self._header, _SPENT_AT)
        return compute, wait, data


def _kind(word: int) -> Kind:
    if word not in _KINDS:
        raise ProtocolError(f"message of unknown kind {word}")
    return _KINDS[word]
