"""The files that a run resumes from: written beside training, aside and renamed, the last few kept.

A checkpoint is one dict of tensors, numbers, strings, lists and dicts, which
``torch.load(path, weights_only=True)`` reads. docs/run-folder.md says what is in it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.atomic import atomic_file
from mpi_dcasgd.record.sealed import DamagedError, load_sealed, save_sealed

LAYOUT = 1
"""Changes whenever a checkpoint of before could be misread."""

_NAME = re.compile(r"update-(\d+)\.pt")


class CheckpointFiles:
    """Writes checkpoints into a folder, one at a time, on a thread of its own.

    Args:
        folder: Made when the first is written.
        keep: How many are left there; older ones are removed once a newer one is whole.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._told = True

    def keep(self, version: int, content: Mapping[str, Any]) -> bool:
        """Write a checkpoint in the background.

        Returns:
            False, with nothing done, while the one before is still being written.
        """
        if self._thread is not None and self._thread.is_alive():
            return False
        self._thread = threading.Thread(
            target=self._write, args=(version, content), name="checkpoint"
        )
        self._thread.start()
        return True

    def keep_now(self, version: int, content: Mapping[str, Any]) -> None:
        """Write a checkpoint and return when it is whole, or there is a complaint."""
        self.finish()
        self._write(version, content)

    def complaint(self) -> str:
        """Return why the last checkpoint could not be written, once; else an empty string."""
        if self._told or self._failure is None:
            return ""
        self._told = True
        return f"no checkpoint: {self._failure}"

    def finish(self) -> None:
        """Wait until nothing is being written."""
        if self._thread is not None:
            self._thread.join()

    def _write(self, version: int, content: Mapping[str, Any]) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic_file(self._folder / f"update-{version:09d}.pt") as file:
                save_sealed({"layout": LAYOUT, **content}, file)
            for old in checkpoints_in(self._folder)[self._keep :]:
                old.unlink(missing_ok=True)
            self._failure = None
        except Exception as error:  # handed to the training thread, which tells it
            self._failure, self._told = error, False


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
