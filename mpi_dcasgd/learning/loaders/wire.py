"""Messages between a rank and its loaders: pickles, with the tensors as bytes behind them.

Bytes on a socket and not shared memory: there is nothing that could be left in ``/dev/shm`` or
run out of file descriptors, whoever is killed when. What that costs is in docs/performance.md.
"""

from __future__ import annotations

import io
import pickle
import socket
import struct
from typing import Any, NamedTuple

import torch
from torch import Tensor

_HEAD = struct.Struct("<QQ")
"""Bytes of the pickle, and of the tensors behind it."""

_ALIGNMENT = 64
"""Of each tensor, as PyTorch allocates: the speed of a kernel, and MKL's rounding, depend on it."""


class _Place(NamedTuple):
    """Place of a tensor among the bytes.

    Attributes:
        shape: Of the tensor with its dimensions in the order in which it lies in memory.
        order: Which dimension of the tensor each of them is.
        start, size: In bytes.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    order: tuple[int, ...]
    start: int
    size: int


class _Pickler(pickle.Pickler):
    """A pickler that keeps the tensors apart."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.parts: list[Tensor] = []
        self.end = 0

    def persistent_id(self, found: Any) -> _Place | None:
        if not (type(found) is Tensor and _is_plain(found)):
            return None  # a rare kind: PyTorch knows how to pickle it
        # As it lies in memory: the layout decides which kernels are used, and how these round.
        order = sorted(range(found.dim()), key=found.stride, reverse=True)
        packed = found.detach().permute(order).contiguous()
        part = packed.reshape(-1).view(torch.uint8)
        start = -(-self.end // _ALIGNMENT) * _ALIGNMENT
        self.end = start + part.numel()
        self.parts.append(part)
        return _Place(found.dtype, tuple(packed.shape), tuple(order), start, part.numel())


class _Unpickler(pickle.Unpickler):
    """An unpickler that finds the tensors among the bytes."""

    def __init__(self, file: io.BytesIO, memory: Tensor) -> None:
        super().__init__(file)
        self._memory = memory

    def persistent_load(self, place: _Place) -> Tensor:
        part = self._memory[place.start : place.start + place.size].view(place.dtype)
        inverse = sorted(range(len(place.order)), key=place.order.__getitem__)
        return part.view(place.shape).permute(inverse)


def send(channel: socket.socket, message: Any) -> None:
    """Send anything that can be pickled, tensors in it or not.

    Raises:
        OSError: The other side has ended.
        Exception: Whatever pickling raises; nothing has been sent then.
    """
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(message)
    channel.sendall(_HEAD.pack(file.tell(), pickler.end))
    channel.sendall(file.getbuffer())
    sent = 0
    for part in pickler.parts:
        gap = -sent % _ALIGNMENT
        if gap:
            channel.sendall(bytes(gap))
        channel.sendall(part.numpy().data)
        sent += gap + part.numel()


def receive(channel: socket.socket) -> Any:
    """Receive a message; its tensors are views of one piece of memory.

    Raises:
        EOFError: The other side has ended, perhaps within the message.
        OSError: The socket failed; the other side may have been killed.
        Exception: Whatever unpickling raises; the message has been received as a whole then.
    """
    head = memoryview(bytearray(_HEAD.size))
    _fill(channel, head)
    length, size = _HEAD.unpack(head)
    text = bytearray(length)
    _fill(channel, memoryview(text))
    memory = torch.empty(size, dtype=torch.uint8)
    _fill(channel, memory.numpy().data)
    return _Unpickler(io.BytesIO(text), memory).load()


def _is_plain(tensor: Tensor) -> bool:
    return (
        tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
    )


def _fill(channel: socket.socket, memory: memoryview) -> None:
    while len(memory):
        count = channel.recv_into(memory)
        if not count:
            raise EOFError("the other side has ended")
        memory = memory[count:]
