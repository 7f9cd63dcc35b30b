"""The files that a run resumes from: written beside training, aside and renamed, the last few kept.

A checkpoint is one dict of tensors, numbers, strings, lists and dicts, which
``torch.load(path, weights_only=True)`` reads. docs/run-folder.md says what is in it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.atomic import atomic_file
from mpi_dcasgd.record.hangs import looked_after
from mpi_dcasgd.record.sealed import DamagedError, load_sealed, save_sealed

PATIENCE_S = 120.0
"""Seconds without a byte after which a checkpoint is held to hang; the default of jobs."""
_LOOK_S = 0.01

LAYOUT = 1
"""Changes whenever a checkpoint of before could be misread."""

_NAME = re.compile(r"update-(\d+)\.pt")


class _Writing:
    """One checkpoint on its way to the disk.

    Args:
        version: Of the weights.
        path: The file.
        write: Writes it, and calls what it is given with each piece that has been written.
        clock: Seconds, monotonic.

    Attributes:
        failure: Why it could not be written, once that is known.
    """

    def __init__(
        self,
        version: int,
        path: Path,
        write: Callable[[Callable[[], None]], None],
        clock: Callable[[], float],
    ) -> None:
        self.version, self.path = version, path
        self.failure: Exception | None = None
        self._clock = clock
        self.alive()
        # A daemon: nothing may wait for a disk that hangs, not even the end of the process.
        # It alone holds what is written, which is as large as the model.
        self._thread = threading.Thread(
            target=self._run, args=(write,), name="checkpoint", daemon=True
        )
        self._thread.start()

    def _run(self, write: Callable[[Callable[[], None]], None]) -> None:
        try:
            with looked_after():
                write(self.alive)
        except Exception as error:  # handed to the training thread, which tells it
            self.failure = error

    def alive(self) -> None:
        """Note that a piece has been written."""
        self._alive_s = self._clock()

    @property
    def silent_s(self) -> float:
        """Seconds since the last piece."""
        return self._clock() - self._alive_s

    @property
    def done(self) -> bool:
        """True if nothing is being written any more."""
        return not self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Wait until it is written, for so many seconds at most."""
        self._thread.join(seconds)


class CheckpointFiles:
    """Writes checkpoints into a folder, one at a time, on a thread of its own.

    A disk or a file system that hangs is waited for no longer than the patience: whoever trains is
    told, and goes on. Until that checkpoint is written after all, no other is begun.

    Args:
        folder: Made when the first is written.
        keep: How many are left there; older ones are removed once a newer one is whole.
        patience_s: Seconds without a byte after which one that is being written is held to hang.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._patience_s = patience_s
        self._clock = clock
        self._writing: _Writing | None = None
        self._complaint = ""
        self._hangs = False

    @property
    def hangs(self) -> str:
        """The checkpoint that hangs, in a few words; empty if none does."""
        if self._writing is None or not self._hangs:
            return ""
        return f"checkpoint of update {self._writing.version} hangs"

    def keep(self, version: int, content: Mapping[str, Any]) -> bool:
        """Write a checkpoint in the background.

        Returns:
            False, with nothing done, while the one before is still being written.
        """
        if not self._free():
            return False
        self._begin(version, content)
        return True

    def keep_now(self, version: int, content: Mapping[str, Any]) -> None:
        """Write a checkpoint and return when it is whole, or there is a complaint."""
        if self.finish():
            self._begin(version, content)
            self.finish()
        elif self._writing is not None:  # told before, but not of this one
            self._complaint = self._text(self._writing)

    def complaint(self) -> str:
        """Return what is wrong with the last checkpoint, once; else an empty string."""
        self._free()
        complaint, self._complaint = self._complaint, ""
        return complaint

    def finish(self) -> bool:
        """Wait until nothing is being written; return whether that is so, or one hangs."""
        while not self._free() and not self._hangs and self._writing is not None:
            self._writing.wait(max(_LOOK_S, self._patience_s - self._writing.silent_s))
        return self._writing is None

    def _begin(self, version: int, content: Mapping[str, Any]) -> None:
        path = self._folder / f"update-{version:09d}.pt"

        def write(alive: Callable[[], None]) -> None:
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as file:
                save_sealed({"layout": LAYOUT, **content}, file, alive)
            for old in checkpoints_in(self._folder)[self._keep :]:
                old.unlink(missing_ok=True)

        self._writing = _Writing(version, path, write, self._clock)

    def _free(self) -> bool:
        """Look after the checkpoint that is being written; return whether there is none."""
        writing = self._writing
        if writing is None:
            return True
        if not writing.done:
            if writing.silent_s >= self._patience_s and not self._hangs:
                self._hangs = True
                self._complaint = self._text(writing)
            return False
        if writing.failure is not None:
            self._complaint = f"no checkpoint: {writing.failure}"
        elif self._hangs:
            self._complaint = f"{writing.path} has been written after all"
        self._writing, self._hangs = None, False
        return True

    def _text(self, writing: _Writing) -> str:
        return (
            f"no checkpoint: {writing.path} hangs: nothing of it has been written for "
            f"{writing.silent_s:.1f} s (checkpoint.patience_s); look at the file system"
        )


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the newest first."""
    found = [path for path in folder.glob("update-*.pt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem.partition("-")[2]), reverse=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint that ``CheckpointFiles`` wrote; its tensors are on the CPU.

    Raises:
        RunFolderError: It is missing, torn, damaged, not a checkpoint or of another layout.
    """
    try:
        content = load_sealed(path)
    except FileNotFoundError as error:
        raise RunFolderError(f"{path}: no such checkpoint") from error
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read: {error.strerror or error}") from error
    except DamagedError as error:
        raise RunFolderError(
            f"{path}: is damaged: {error}; a disk or a copy failed, or it was changed"
        ) from error
    except Exception as error:  # whatever a torn file makes PyTorch raise, with advice to trust it
        raise RunFolderError(
            f"{path}: cannot be read as a checkpoint: it is torn, or something else"
        ) from error
    if not isinstance(content, dict) or "layout" not in content:
        raise RunFolderError(f"{path}: is not a checkpoint of a run")
    if content["layout"] != LAYOUT:
        raise RunFolderError(
            f"{path}: a checkpoint of layout {content['layout']}, but this version of mpi_dcasgd "
            f"reads layout {LAYOUT}; resume with the version that wrote it"
        )
    return content
