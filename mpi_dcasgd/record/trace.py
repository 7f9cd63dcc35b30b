"""trace.bin: every push, in the order in which the server dealt with them, a few bytes each.

The job and this file are enough to repeat an asynchronous run bit for bit, or to put another
rule through the same delays. docs/run-folder.md has the layout to the byte; in short::

    header  magic, length and JSON description, CRC
    block   tag UPDT, length, count, CRC | count records | CRC        any number of these
    block   tag RSM., length, count, CRC | JSON                | CRC        it resumed here
    block   tag END., length, count, CRC | JSON                | CRC        a run that ended

    record  varint worker << 2 | action
            varint zigzag(ticket - expected)     expected = 1 + the highest ticket so far
            varint staleness                     the version it was computed at lies so far back
            varint microseconds since the record before
            varint fingerprint of the gradient           server.records.fingerprint, 16 bits

The server's version is not stored: it is the number of applied records so far. Every CRC continues
from the one before, so a block that was changed, removed or moved does not go unnoticed. Blocks
are written whole, so a killed run leaves at worst one block that is cut short.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.server.records import Action
from mpi_dcasgd.wording import counted

MAGIC = b"DCTRACE\x01"
"""Seven letters, then the version of the layout."""

UPDATES, RESUMED, END = b"UPDT", b"RSM.", b"END."
"""The content of a block: records, or JSON on how the run was resumed or ended."""

BLOCK_HEAD = struct.Struct("<4sII")
"""Tag, bytes of payload, and count: records in this block, or in the file so far."""

U32 = struct.Struct("<I")
FIELDS = 5
MAX_RECORDS = 4096
MAX_PAYLOAD = MAX_RECORDS * FIELDS * 10
"""No varint of 64 bits takes more than ten bytes."""


class TraceRecord(NamedTuple):
    """One push.

    Attributes:
        worker: Who pushed, from 0.
        ticket: The minibatch.
        version: Updates applied before it.
        staleness: ``version`` minus the version that the gradient was computed at.
        action: What became of it.
        time_s: When, in seconds since training began, to the microsecond.
        mark: ``server.records.fingerprint`` of the gradient.
    """

    worker: int
    ticket: int
    version: int
    staleness: int
    action: Action
    time_s: float
    mark: int


class Restart(NamedTuple):
    """A run was resumed from a checkpoint, with new workers that pulled the weights of then.

    Attributes:
        records: Pushes before.
        num_workers: From here on.
    """

    records: int
    num_workers: int


@dataclass(frozen=True)
class Trace:
    """A trace in memory, column by column, each of shape (n,).

    Attributes:
        meta: What the writer said the trace is of.
        worker: Who pushed, int64.
        ticket: The minibatch, int64.
        version: Updates applied before, int64.
        staleness: In updates, int64.
        action: ``Action`` numbers, uint8.
        time_us: Microseconds since training began, int64.
        mark: Fingerprints of the gradients, int64.
        restarts: Where the run was resumed from a checkpoint, if it was.
        truncated: The run was killed, or the file was cut: there is no end block.
        status: How the run ended, or None if ``truncated``.
    """

    meta: dict[str, Any]
    worker: NDArray[np.int64]
    ticket: NDArray[np.int64]
    version: NDArray[np.int64]
    staleness: NDArray[np.int64]
    action: NDArray[np.uint8]
    time_us: NDArray[np.int64]
    mark: NDArray[np.int64]
    truncated: bool
    status: str | None
    restarts: tuple[Restart, ...] = ()

    def __len__(self) -> int:
        return len(self.worker)

    @property
    def updates(self) -> int:
        """Updates applied in all: the version after the last record."""
        return int(np.count_nonzero(self.action == Action.APPLIED))

    def records(self) -> Iterator[TraceRecord]:
        """The pushes one by one."""
        actions = list(Action)
        for worker, ticket, version, staleness, action, time_us, mark in zip(
            self.worker.tolist(),
            self.ticket.tolist(),
            self.version.tolist(),
            self.staleness.tolist(),
            self.action.tolist(),
            self.time_us.tolist(),
            self.mark.tolist(),
            strict=True,
        ):
            yield TraceRecord(
                worker, ticket, version, staleness, actions[action], time_us / 1e6, mark
            )


def read_trace(path: Path, *, strict: bool = False) -> Trace:
    """Read and check a trace.

    Args:
        path: The file.
        strict: Refuse a trace without an end block, too. Otherwise what is complete is returned
            with ``truncated`` set.

    Raises:
        RunFolderError: It is missing, not a trace, of another layout, or was changed; or it was
            cut short and ``strict`` is set. The message names the offset.
    """
    return TraceReader(path).read(strict=strict)


def running_crc(path: Path, length: int) -> int:
    """The CRC of a trace after its first ``length`` bytes, all of them checked.

    Raises:
        RunFolderError: As ``read_trace``, or it is shorter.
    """
    reader = TraceReader(path, length)
    reader.read()
    return reader.crc


class TraceReader:
    """Reads one file, or its first ``length`` bytes; see :func:`read_trace`.

    Attributes:
        crc: Of what was read so far.
    """

    def __init__(self, path: Path, length: int | None = None) -> None:
        self._path = path
        try:
            self._content = memoryview(path.read_bytes())[:length]
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be read: {error.strerror}") from error
        if length is not None and len(self._content) < length:
            raise RunFolderError(f"{path}: has {len(self._content)} bytes, not {length} or more")
        self.crc = 0

    def read(self, *, strict: bool = False) -> Trace:
        meta, offset = self._header()
        pieces: list[NDArray[np.uint64]] = []
        restarts: list[Restart] = []
        status: str | None = None
        records = 0
        while status is None and (block := self._block(offset)) is not None:
            tag, payload, count, end = block
            if tag == UPDATES:
                pieces.append(self._values(payload, count, offset))
                records += count
                offset = end
                continue
            if count != records:
                raise self._damaged(offset, f"holds {records} of {counted(count, 'record')}")
            if tag == RESUMED:
                told = self._mapping(payload, offset, "num_workers")
                restarts.append(Restart(records, told["num_workers"]))
            else:
                status = self._mapping(payload, offset, "status")["status"]
            offset = end
        if status is not None and offset != len(self._content):
            raise self._damaged(offset, "something follows the end of the run")
        if status is None and strict:
            raise RunFolderError(
                f"{self._path}: cut short at byte {offset}, after {counted(records, 'record')}: "
                "the run was killed, or the file was not copied whole; what is there can be read "
                "when an incomplete trace is allowed"
            )
        values = np.concatenate([np.empty((0, FIELDS), np.uint64), *pieces])
        return replace(_decode(meta, values, status), restarts=tuple(restarts))

    def _header(self) -> tuple[dict[str, Any], int]:
        content, fixed = self._content, len(MAGIC) + U32.size
        if content[: len(MAGIC) - 1] != MAGIC[:-1]:
            raise RunFolderError(
                f"{self._path}: not a trace: it does not begin with {MAGIC[:-1]!r}"
            )
        if len(content) < fixed:
            raise RunFolderError(f"{self._path}: cut short within its header")
        if content[len(MAGIC) - 1] != MAGIC[-1]:
            raise RunFolderError(
                f"{self._path}: layout {content[len(MAGIC) - 1]}, but this version of mpi_dcasgd"
                f" reads layout {MAGIC[-1]}; read it with the version that wrote it"
                " (environment.json says which)"
            )
        end = fixed + U32.unpack_from(content, len(MAGIC))[0]
        if len(content) < end + U32.size:
            raise RunFolderError(f"{self._path}: cut short within its header")
        self.crc = zlib.crc32(content[:end])
        if self.crc != U32.unpack_from(content, end)[0]:
            raise self._damaged(0, "its header does not match its checksum")
        return self._mapping(content[fixed:end], 0), end + U32.size

    def _mapping(self, payload: memoryview, offset: int, *keys: str) -> dict[str, Any]:
        """Return what a header or a block tells in JSON, with these keys in it."""
        try:
            told = json.loads(bytes(payload))
        except (ValueError, RecursionError) as error:
            raise self._damaged(offset, "it holds no JSON") from error
        if not isinstance(told, dict) or not told.keys() >= set(keys):
            raise self._damaged(offset, f"it holds no {' and '.join(keys) or 'mapping'}")
        return told

    def _block(self, offset: int) -> tuple[bytes, memoryview, int, int] | None:
        """Tag, payload, count and end of the block at ``offset``; None if it is not whole."""
        content = self._content
        body = offset + BLOCK_HEAD.size + U32.size
        if len(content) < body:
            return None
        tag, size, count = BLOCK_HEAD.unpack_from(content, offset)
        head_crc = zlib.crc32(content[offset : offset + BLOCK_HEAD.size], self.crc)
        # The head has a CRC of its own: without it a changed length would look like a cut file.
        if head_crc != U32.unpack_from(content, body - U32.size)[0]:
            raise self._damaged(offset, "a block's head does not match its checksum")
        if tag not in (UPDATES, RESUMED, END) or size > MAX_PAYLOAD:
            raise self._damaged(offset, f"a block that this version does not know ({tag!r})")
        end = body + size + U32.size
        if len(content) < end:
            return None
        crc = zlib.crc32(content[body : body + size], head_crc)
        if crc != U32.unpack_from(content, body + size)[0]:
            raise self._damaged(offset, "a block does not match its checksum")
        self.crc = crc
        return tag, content[body : body + size], count, end

    def _values(self, payload: memoryview, count: int, offset: int) -> NDArray[np.uint64]:
        values = decode_varints(payload)
        if len(values) != count * FIELDS:
            raise self._damaged(
                offset, f"a block with {len(values)} numbers for {counted(count, 'record')}"
            )
        return values.reshape(count, FIELDS)

    def _damaged(self, offset: int, what: str) -> RunFolderError:
        return RunFolderError(
            f"{self._path}: damaged at byte {offset}: {what}; the file was changed after the run,"
            " or a disk or a copy failed: take it from a good copy"
        )


def decode_varints(payload: bytes | memoryview) -> NDArray[np.uint64]:
    """The numbers in a run of whole varints (seven bits a byte, low first, top bit: more)."""
    data = np.frombuffer(payload, np.uint8)
    ends = np.flatnonzero(data < 0x80)
    starts = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
    lengths = ends - starts + 1
    values = np.zeros(len(ends), np.uint64)
    for place in range(int(lengths.max(initial=0))):
        longer = lengths > place
        bits = (data[starts[longer] + place] & 0x7F).astype(np.uint64)
        values[longer] |= bits << np.uint64(7 * place)
    return values


def _decode(meta: dict[str, Any], values: NDArray[np.uint64], status: str | None) -> Trace:
    numbers = values.astype(np.int64)
    head, jump, staleness, passed, mark = numbers.T
    action = (head & 3).astype(np.uint8)
    # zigzag: 0, -1, 1, -2, ... were stored as 0, 1, 2, 3, ...
    jump = (jump >> 1) ^ -(jump & 1)
    # Each record moves the expected ticket on by jump + 1 if it is the highest yet, else by 0.
    moved = np.cumsum(np.maximum(jump + 1, 0))
    expected = np.concatenate(([0], moved[:-1])) if len(moved) else moved
    applied = np.cumsum(action == Action.APPLIED)
    return Trace(
        meta=meta,
        worker=head >> 2,
        ticket=expected + jump,
        version=applied - (action == Action.APPLIED),
        staleness=np.ascontiguousarray(staleness),
        action=action,
        time_us=np.cumsum(passed),
        mark=np.ascontiguousarray(mark),
        truncated=status is None,
        status=status,
    )
