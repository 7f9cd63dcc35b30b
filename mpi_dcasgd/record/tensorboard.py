"""TensorBoard's event files, written without TensorBoard, which only looking at them needs.

A file is a sequence of records: length and masked CRC-32C of the length, a protocol buffer, masked
CRC-32C of it. The buffers are TensorFlow's ``Event`` and the hparams plugin's data; the few fields
that are used are written here by their numbers.
"""

from __future__ import annotations

import math
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.sinks import MetricSink

if TYPE_CHECKING:
    from mpi_dcasgd.record.run_folder import RunFolder

_STATUS = {"completed": 1, "failed": 2, "interrupted": 0}  # the plugin's numbers
_HIDDEN = ("record", "faults", "name", "code")
_AXIS = ("version", "samples", "epoch")


class TensorBoard(MetricSink):
    """Scalars of all events, messages and hyperparameters, in the folder ``tensorboard``.

    ``tensorboard --logdir RUN`` shows them, ``--logdir STUDY`` all runs of a study side by side,
    with their settings under HPARAMS. The horizontal axis counts updates; a resume adds a file,
    and what is written again replaces what was there.
    """

    def __init__(self, folder: RunFolder, offset: int | None = None) -> None:
        self._job = folder.job(lenient=True)
        self._version = offset or 0
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder.tensorboard / name
        try:
            folder.tensorboard.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise RunFolderError(f"{self._path}: cannot be written: {error.strerror}") from error
        self._event(_bytes(3, b"brain.Event:2"))
        if offset is not None:
            # Those of after the checkpoint, which are made again, are purged by the viewer.
            self._event(_varint(2, self._version + 1) + _bytes(7, _varint(1, 1)))

    def write(self, event: str, time_s: float, values: Mapping[str, Any]) -> None:
        step = values.get("version")
        self._version = step if isinstance(step, int) else self._version
        if event in ("start", "resume"):
            self._session({**_flat("", self._job), "num_workers": values.get("num_workers")})
        elif event == "end":
            status = _varint(1, _STATUS.get(values.get("status", ""), 0))
            ended = _bytes(4, status + _double(2, time.time()))
            self._summary(_plugin("_hparams_/session_end_info", ended))
        elif isinstance(text := values.get("text"), str):
            self._summary(_text(event, text))
        elif event != "worker":
            found = [_scalar(f"{event}/{k}", v) for k, v in _scalars(values) if k not in _AXIS]
            found += [_scalar("epoch", v) for k, v in _scalars(values) if k == "epoch"]
            self._summary(b"".join([*found, _scalar("time_s", time_s)]))

    @property
    def offset(self) -> int:
        return self._version

    def close(self) -> None:
        self._file.close()

    def _session(self, settings: Mapping[str, Any]) -> None:
        pairs = b"".join(
            _bytes(1, _bytes(1, key.encode()) + _bytes(2, _value(value)))
            for key, value in settings.items()
            if value is not None
        )
        self._summary(
            _plugin("_hparams_/session_start_info", _bytes(3, pairs + _double(5, time.time())))
        )

    def _summary(self, values: bytes) -> None:
        self._event(_varint(2, self._version) + _bytes(5, values))

    def _event(self, body: bytes) -> None:
        data = _double(1, time.time()) + body
        length = struct.pack("<Q", len(data))
        record = length + _crc(length) + data + _crc(data)
        try:
            self._file.write(record)
        except OSError as error:
            raise RunFolderError(f"{self._path}: cannot be written: {error.strerror}") from error


def _scalars(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield key, float(value)
        elif isinstance(value, (list, tuple)):
            yield from _scalars({f"{key}/{n}": item for n, item in enumerate(value)})


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    """The settings of a job by their dotted keys, as far as they decide what is learnt."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        if prefix or key not in _HIDDEN:
            found |= _flat(f"{prefix}.{key}" if prefix else str(key), inner)
    return found


def _value(value: Any) -> bytes:
    """A setting as google.protobuf.Value."""
    if isinstance(value, bool):
        return _varint(4, int(value))
    if isinstance(value, (int, float)) and math.isfinite(value):
        return _double(2, float(value))
    return _bytes(3, str(value).encode())


def _scalar(tag: str, value: float) -> bytes:
    packed = struct.pack("<f", value) if abs(value) < 3e38 else struct.pack("<f", math.nan)
    return _bytes(1, _bytes(1, tag.encode()) + _number(2, 5) + packed)


def _text(tag: str, text: str) -> bytes:
    tensor = _varint(1, 7) + _bytes(2, _bytes(2, _varint(1, 1))) + _bytes(8, text.encode())
    metadata = _bytes(1, _bytes(1, b"text"))
    return _bytes(1, _bytes(1, tag.encode()) + _bytes(9, metadata) + _bytes(8, tensor))


def _plugin(tag: str, content: bytes) -> bytes:
    metadata = _bytes(1, _bytes(1, b"hparams") + _bytes(2, content))
    return _bytes(1, _bytes(1, tag.encode()) + _bytes(9, metadata))


def _number(field: int, kind: int) -> bytes:
    return bytes([field << 3 | kind])  # fields below 16


def _varint(field: int, value: int) -> bytes:
    encoded = _number(field, 0)
    while value > 0x7F:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


def _double(field: int, value: float) -> bytes:
    return _number(field, 1) + struct.pack("<d", value)


def _bytes(field: int, content: bytes) -> bytes:
    length = _varint(0, len(content))[1:]
    return _number(field, 2) + length + content


def _table() -> list[int]:
    """CRC-32C (Castagnoli) of each byte; zlib has another polynomial."""
    found = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        found.append(crc)
    return found


_CRC = _table()


def _crc(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    masked = (crc >> 15 | crc << 17) + 0xA282EAD8
    return struct.pack("<I", masked & 0xFFFFFFFF)
