"""Memory that the server and one of its workers map: the worker's push, and the reply to it.

The server creates it without a name (``memfd_create``) and the worker opens it through ``/proc``,
so that nothing can be left in /dev/shm, whoever is killed when, and its size does not matter. The
memory lives until neither of the two maps it any more. It is reserved when it is created, and
sealed at its size: whatever the worker does, the server's loads and stores find memory. Of several
servers the first creates it, the others open it as the worker does, and each uses its stretch.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import secrets
import stat
import struct
from contextlib import suppress
from copy import copy
from typing import NamedTuple

import torch
from torch import Tensor

from mpi_dcasgd.rules.alignment import LANE_BYTES

_CONTROL = struct.Struct("=16sQ")  # the key, and the elements of a vector
_FIRST_BYTE = 64
"""Where large allocations begin within a page, and so do the weights."""
_PAGE_BYTES = mmap.PAGESIZE
_HUGE_PAGE_BYTES = 2 << 20
_MADV_POPULATE_WRITE = 23  # Linux 5.14


class UnsharedError(Exception):
    """Two processes cannot share memory, for the reason that it says."""


class Offer(NamedTuple):
    """Address of a segment, for a process on the same host and in the same PID namespace.

    Attributes:
        pid: The process that has it open.
        fd: Its descriptor there.
        key: Bytes at the beginning of the segment, which no other file has.
        size: Elements of a vector.
    """

    pid: int
    fd: int
    key: bytes
    size: int


class Segment:
    """Push and reply of one worker in memory that its process and the server's have in common.

    Make one with ``create`` in the server and with ``attach`` in the worker.

    Args:
        mapping: The memory; it is unmapped once the vectors are gone.
        size: Elements of a vector.

    Attributes:
        reply: ``[weights | statistics]``, shape (size,), float32: the worker's snapshot.
        push: ``[gradient | statistics]``, shape (size,), float32.

    Example:
        >>> segment, offered = Segment.create(3)
        >>> theirs = Segment.attach(offered.offer)
        >>> offered.close()
        >>> _ = theirs.push.fill_(2.0)
        >>> segment.push.tolist()
        [2.0, 2.0, 2.0]
    """

    def __init__(self, mapping: mmap.mmap, size: int) -> None:
        reply, push, _ = _places(size)
        self.reply = _vector(mapping, size, reply)
        self.push = _vector(mapping, size, push)

    def part(self, begin: int, end: int) -> Segment:
        """Return a stretch of both vectors, for a server that has no more of them."""
        one = copy(self)
        one.reply, one.push = self.reply[begin:end], self.push[begin:end]
        return one

    @classmethod
    def create(cls, size: int) -> tuple[Segment, Offered]:
        """Create a segment of zeros, with all of its memory.

        Args:
            size: Elements of a vector, at least 1.

        Raises:
            UnsharedError: The system does not give it.
        """
        if not hasattr(os, "memfd_create"):
            raise UnsharedError("this system has no memory without a name (memfd_create)")
        length = _places(size)[2]
        try:
            fd = os.memfd_create("mpi_dcasgd", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            offered = Offered(Offer(os.getpid(), fd, secrets.token_bytes(16), size))
        except OSError as error:
            raise UnsharedError(f"memfd_create: {error.strerror}") from error
        try:
            os.ftruncate(fd, length)
            # Nobody can take memory away that the other is about to read.
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            mapping = mmap.mmap(fd, length)
            ask_for_huge_pages(mapping)
            _reserve(fd, mapping, length)
        except OSError as error:
            offered.close()
            raise UnsharedError(f"{length:,} bytes of shared memory: {error.strerror}") from error
        mapping[: _CONTROL.size] = _CONTROL.pack(offered.offer.key, size)
        return cls(mapping, size), offered

    @classmethod
    def attach(cls, offer: Offer) -> Segment:
        """Map the segment that another process offers.

        Raises:
            UnsharedError: It cannot be opened from here, or is not the one that was meant.
        """
        path = f"/proc/{offer.pid}/fd/{offer.fd}"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            raise UnsharedError(f"opening the server's memory, {path}: {error.strerror}") from error
        length = _places(offer.size)[2]
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size != length:
                raise UnsharedError(f"{path} is not the server's memory")
            mapping = mmap.mmap(fd, length)
        except OSError as error:
            raise UnsharedError(f"mapping the server's memory: {error.strerror}") from error
        finally:
            os.close(fd)
        if mapping[: _CONTROL.size] != _CONTROL.pack(offer.key, offer.size):
            raise UnsharedError(f"{path} is not the server's memory")
        ask_for_huge_pages(mapping)
        return cls(mapping, offer.size)


class Offered:
    """The descriptor by which a worker can open a segment, until it is closed.

    Args:
        offer: What the worker needs to know.
    """

    def __init__(self, offer: Offer) -> None:
        self.offer = offer

    def close(self) -> None:
        """Close it: who has mapped the memory keeps it."""
        os.close(self.offer.fd)


def ask_for_huge_pages(mapping: mmap.mmap) -> None:
    """Ask for huge pages; the kernel has a setting of its own for memory that is shared.

    It is /sys/kernel/mm/transparent_hugepage/shmem_enabled, and must be ``advise`` or more.
    """
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            mapping.madvise(mmap.MADV_HUGEPAGE)


def page_lock(vector: Tensor) -> bool:
    """Register a vector with CUDA, so that copies to and from a GPU need no staging.

    Returns:
        Whether it is; copies work in either case.
    """
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    return int(runtime.cudaHostRegister(vector.data_ptr(), vector.nbytes, 0)) == 0


def unlock_pages(vector: Tensor) -> None:
    """Undo ``page_lock``, before the memory is unmapped."""
    torch.cuda.cudart().cudaHostUnregister(vector.data_ptr())  # type: ignore[no-untyped-call]


def _places(size: int) -> tuple[int, int, int]:
    """Return where the reply and the push begin, and the length of it all, in bytes.

    The vectors of an update begin at different places within a page (``rules.alignment``): the
    weights in lane 0, the snapshot in lane 1, the gradient in lane 2.
    """
    bytes_each = 4 * size
    grain = _HUGE_PAGE_BYTES if bytes_each >= _HUGE_PAGE_BYTES else _PAGE_BYTES
    reply = _FIRST_BYTE + LANE_BYTES
    push = _up(reply + bytes_each, grain) + _FIRST_BYTE + 2 * LANE_BYTES
    return reply, push, _up(push + bytes_each, grain)


def _vector(mapping: mmap.mmap, size: int, begin: int) -> Tensor:
    return torch.frombuffer(mapping, dtype=torch.float32, count=size, offset=begin)


def _up(number: int, grain: int) -> int:
    return -(-number // grain) * grain


def _reserve(fd: int, mapping: mmap.mmap, length: int) -> None:
    """Get all pages now: later, a host without memory would kill whoever touches one."""
    try:
        mapping.madvise(_MADV_POPULATE_WRITE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        os.posix_fallocate(fd, 0, length)  # an older kernel; it may not take huge pages so
