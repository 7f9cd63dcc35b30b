"""Writing of trace.bin during a run; the layout is in docs/run-folder.md."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.description import RunDescription
from mpi_dcasgd.record.hangs import working_on
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.settings import RecordSettings
from mpi_dcasgd.record.trace import (
    BLOCK_HEAD,
    END,
    MAGIC,
    MAX_RECORDS,
    RESUMED,
    U32,
    UPDATES,
    running_crc,
)

_USUAL_RECORDS = 1024


class TraceWriter:
    """Appends pushes to a trace. It never looks at a clock: it is told the time.

    Args:
        path: The file; replaced if it exists.
        meta: What the trace is of (JSON); the reader gives it back.
        flush_records: Records in a block, at most 4096.
        flush_s: Seconds after which a block is written even if it is not full.

    Raises:
        RunFolderError: The file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        meta: Mapping[str, Any],
        *,
        flush_records: int = _USUAL_RECORDS,
        flush_s: float = 1.0,
    ) -> None:
        self._path = path
        self._flush_records = min(flush_records, MAX_RECORDS)
        self._flush_us = int(flush_s * 1e6)
        self._payload = bytearray()
        self._count = self._total = 0
        self._expected = self._time_us = self._flushed_us = 0
        text = json.dumps(dict(meta), separators=(",", ":")).encode()
        head = MAGIC + U32.pack(len(text)) + text
        self._crc = zlib.crc32(head)
        try:
            # Unbuffered, so that a block is with the system once it is written.
            with working_on(path):
                self._file = open(path, "wb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be written: {error.strerror}") from error
        self._write(head + U32.pack(self._crc))

    @classmethod
    def resume(
        cls,
        path: Path,
        place: Mapping[str, Any],
        num_workers: int,
        *,
        flush_s: float = 1.0,
        seamless: bool = False,
    ) -> TraceWriter:
        """Go on with a trace from where it was when `place` was called; what came later is cut.

        Args:
            path: The file.
            place: What `place` returned.
            num_workers: Those that resume, numbered from 0 afresh.
            flush_s: As for a new trace.
            seamless: The workers are those of before, in the middle of what they did: the trace
                does not tell that there was an interruption.

        Raises:
            RunFolderError: The file is shorter, is another's, or cannot be written.
        """
        writer = cls.__new__(cls)
        writer._path = path
        writer._flush_records, writer._flush_us = _USUAL_RECORDS, int(flush_s * 1e6)
        # An earlier version always flushed.
        writer._payload = bytearray(place.get("pending", ()))
        writer._count = place.get("pending_records", 0)
        writer._total, writer._crc = place["records"], place["crc"]
        writer._expected = place["expected"]
        writer._time_us = place["time_us"]
        writer._flushed_us = place.get("flushed_us", writer._time_us)
        if running_crc(path, place["offset"]) != place["crc"]:
            raise RunFolderError(f"{path}: is not the trace that belongs to the checkpoint")
        try:
            with working_on(path):
                writer._file = open(path, "r+b", buffering=0)  # noqa: SIM115
                writer._file.seek(place["offset"])
                writer._file.truncate()
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be written: {error.strerror}") from error
        if seamless:
            return writer
        told = {"num_workers": num_workers, "records": writer._total}
        writer._block(RESUMED, json.dumps(told, separators=(",", ":")).encode(), writer._total)
        return writer

    def place(self, *, flush: bool = True) -> dict[str, Any]:
        """Return the position of the trace, for `resume`.

        Args:
            flush: Hand all records to the system first. Otherwise those that are not in the file
                yet are part of the place, and the file is that of a run that was not looked at.
        """
        if flush:
            self.flush()
        return {
            "offset": self._file.tell(),
            "crc": self._crc,
            "records": self._total,
            "expected": self._expected,
            "time_us": self._time_us,
            "pending": list(self._payload),
            "pending_records": self._count,
            "flushed_us": self._flushed_us,
        }

    def add(
        self, worker: int, ticket: int, staleness: int, action: int, time_s: float, mark: int
    ) -> None:
        """Append one push.

        Args:
            worker: From 0.
            ticket: The minibatch.
            staleness: In updates, >= 0.
            action: An ``Action``.
            time_s: Seconds since training began; taken as no earlier than the record before.
            mark: The gradient's ``server.records.fingerprint``.
        """
        jump = ticket - self._expected
        if jump >= 0:
            self._expected = ticket + 1
            jump <<= 1
        else:
            jump = (-jump << 1) - 1
        time_us = round(time_s * 1e6)
        passed = time_us - self._time_us
        if passed > 0:
            self._time_us = time_us
        else:
            passed = 0
        append = self._payload.append
        for value in (worker << 2 | action, jump, staleness, passed, mark):
            while value > 0x7F:
                append(value & 0x7F | 0x80)
                value >>= 7
            append(value)
        self._count += 1
        if self._count >= self._flush_records or time_us - self._flushed_us >= self._flush_us:
            self.flush()

    def flush(self) -> None:
        """Hand what was added so far to the system, as one block."""
        self._flushed_us = self._time_us
        if self._count:
            self._block(UPDATES, bytes(self._payload), self._count)
            self._total += self._count
            self._count = 0
            self._payload.clear()

    def end(self, status: str) -> None:
        """Say that the run ended by itself, and close the file."""
        if self._file.closed:
            return  # it could not be written, and somebody was told
        self.flush()
        text = json.dumps({"status": status, "records": self._total}, separators=(",", ":"))
        self._block(END, text.encode(), self._total)
        self.close()

    def close(self) -> None:
        """Close the file as it is: without ``end``, readers call it cut short."""
        if not self._file.closed:
            self.flush()
            with working_on(self._path):
                self._file.close()

    def _block(self, tag: bytes, payload: bytes, count: int) -> None:
        head = BLOCK_HEAD.pack(tag, len(payload), count)
        head_crc = zlib.crc32(head, self._crc)
        self._crc = zlib.crc32(payload, head_crc)
        self._write(head + U32.pack(head_crc) + payload + U32.pack(self._crc))

    def _write(self, content: bytes) -> None:
        try:
            with working_on(self._path):
                written = self._file.write(content)
            if written != len(content):
                raise OSError(None, "no space left")
        except OSError as error:
            self._file.close()
            raise RunFolderError(f"{self._path}: cannot be written: {error.strerror}") from error


def open_trace(
    folder: RunFolder,
    run: RunDescription,
    settings: RecordSettings,
    saved: Mapping[str, Any] | None,
) -> TraceWriter | None:
    """Open the run's trace, new or resumed by a checkpoint; a run begun without has none.

    Args:
        folder: Of the run.
        run: What is known of it.
        settings: The job's ``record:`` section.
        saved: The recorder's state, where the run resumes from a checkpoint.
    """
    if not settings.trace:
        return None
    if saved is None:
        return TraceWriter(folder.trace_bin, asdict(run), flush_s=settings.trace_flush_s)
    if saved["trace"] is None:
        return None
    return TraceWriter.resume(
        folder.trace_bin,
        saved["trace"],
        run.num_workers,
        flush_s=settings.trace_flush_s,
        seamless=run.virtual,
    )
