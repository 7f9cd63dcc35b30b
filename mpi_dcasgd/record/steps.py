"""steps.bin: where the time of every push went, beside the trace; and the server's load from it.

The layout is in docs/run-folder.md. The k-th record belongs to the k-th push of trace.bin.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.hangs import working_on

MAGIC = b"DCSTEPS\x01"
FIELDS = ("wait_s", "data_s", "compute_s", "apply_s")
_RECORD_BYTES = 4 * len(FIELDS)
_FLUSH_RECORDS = 1024


@dataclass(frozen=True, slots=True)
class Load:
    """Work of server and workers since the call before.

    Attributes:
        server: Seconds that the server was applying pushes.
        pushes: Of each worker.
        steps_s: Seconds that each worker computed and loaded data.
    """

    server: float
    pushes: tuple[int, ...]
    steps_s: tuple[float, ...]


class StepWriter:
    """Appends where the time of each push went, as differences of the workers' accounts.

    Args:
        path: The file; None to write none and only tell the load.
        accounts: Of the workers, in place: they are added to before a push is recorded.
        busy_s: Seconds so far in which the server was applying pushes.
        saved: What ``state_dict`` returned, if the run is resumed.
        seamless: The accounts go on where they were then; otherwise they begin at zero.

    Raises:
        RunFolderError: The file cannot be written.
    """

    def __init__(
        self,
        path: Path | None,
        accounts: Sequence[Account],
        busy_s: Callable[[], float],
        saved: Mapping[str, Any] | None = None,
        *,
        seamless: bool = False,
    ) -> None:
        self._path = path
        self._accounts = accounts
        self._busy_s = busy_s
        self._pending = array("f")
        self._records = saved["records"] if saved else 0
        self._seen = [(0.0, 0.0, 0.0)] * len(accounts)
        self._seen_busy_s = 0.0
        self._told: Load = Load(0.0, (0,) * len(accounts), (0.0,) * len(accounts))
        if saved and seamless:
            self._seen = [tuple(each) for each in saved["seen"]]
            self._seen_busy_s = saved["busy_s"]
            self._told = Load(saved["told_s"], tuple(saved["pushes"]), tuple(saved["steps_s"]))
        self._file: BinaryIO | None = None
        if path is not None:
            try:
                with working_on(path):
                    self._file = _open(path, self._records)
            except OSError as error:
                raise self._failed(error) from error

    def add(self, worker: int) -> None:
        """Enter the push that has just been dealt with."""
        account, busy_s = self._accounts[worker], self._busy_s()
        wait_s, data_s, compute_s = account.wait_s, account.data_s, account.compute_s
        seen = self._seen[worker]
        self._seen[worker] = (wait_s, data_s, compute_s)
        self._records += 1
        self._pending.extend(
            (wait_s - seen[0], data_s - seen[1], compute_s - seen[2], busy_s - self._seen_busy_s)
        )
        self._seen_busy_s = busy_s
        if len(self._pending) >= _FLUSH_RECORDS * len(FIELDS):
            self.flush()

    def load(self) -> Load:
        """Return the work since the call before."""
        accounts, told = self._accounts, self._told
        now = self._told = Load(
            self._busy_s(),
            tuple(account.updates for account in accounts),
            # As of their last pushes: a simulated step is entered when it begins.
            tuple(data_s + compute_s for _, data_s, compute_s in self._seen),
        )
        return Load(
            now.server - told.server,
            tuple(a - b for a, b in zip(now.pushes, told.pushes, strict=True)),
            tuple(a - b for a, b in zip(now.steps_s, told.steps_s, strict=True)),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the file and what of the accounts is in it, in plain values."""
        self.flush()
        return {
            "records": self._records,
            "seen": [list(each) for each in self._seen],
            "busy_s": self._seen_busy_s,
            "told_s": self._told.server,
            "pushes": list(self._told.pushes),
            "steps_s": list(self._told.steps_s),
        }

    def flush(self) -> None:
        """Hand all records to the system.

        Raises:
            RunFolderError: They cannot be written.
        """
        pending, self._pending = self._pending, array("f")
        if self._file is None or not pending:
            return
        try:
            with working_on(str(self._path)):
                self._file.write(np.asarray(pending, "<f4").tobytes())
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Write what is left, and close the file."""
        if self._file is not None:
            try:
                self.flush()
            finally:
                with working_on(str(self._path)):
                    self._file.close()
                self._file = None

    def _failed(self, error: OSError) -> RunFolderError:
        return RunFolderError(f"{self._path}: cannot be written: {error.strerror}")


def read_steps(path: Path, records: int) -> NDArray[np.float32] | None:
    """Read where the time of each push went.

    Args:
        path: The file.
        records: Pushes of the trace; those that the file does not know are not a number.

    Returns:
        Of shape (records, 4), in the order of ``FIELDS``; None if there is no file.

    Raises:
        RunFolderError: It cannot be read, or is another's.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read: {error.strerror}") from error
    if not content.startswith(MAGIC):
        raise RunFolderError(
            f"{path}: not a file of step times: it does not begin with {MAGIC!r}; remove it, and "
            "the timeline is made of the trace alone"
        )
    whole = (len(content) - len(MAGIC)) // _RECORD_BYTES
    found = np.frombuffer(content, "<f4", whole * len(FIELDS), len(MAGIC))
    steps = np.full((records, len(FIELDS)), np.nan, np.float32)
    known = min(records, whole)
    steps[:known] = found.reshape(-1, len(FIELDS))[:known]
    return steps


def _open(path: Path, records: int) -> BinaryIO:
    """Open a file with so many records, those that are not there not a number."""
    if not records:
        file = open(path, "wb", buffering=0)  # noqa: SIM115
        file.write(MAGIC)
        return file
    fresh = not path.exists()
    file = open(path, "ab", buffering=0)  # noqa: SIM115
    if fresh:
        file.write(MAGIC)
    wanted = len(MAGIC) + _RECORD_BYTES * records
    here = os.fstat(file.fileno()).st_size
    if here > wanted:
        file.truncate(wanted)
    else:
        missing = wanted - here
        filler = np.full(missing // 4 + 1, np.nan, "<f4").tobytes()
        file.write(filler[:missing])
    return file
