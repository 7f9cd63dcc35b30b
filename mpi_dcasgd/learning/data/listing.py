"""The image files of a split: a folder for each class, looked through with all that is below it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mpi_dcasgd.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Endings of the names of images, those of torchvision's ImageFolder."""

_NO_DATA = ("__MACOSX", "__pycache__", "@eaDir", "lost+found")
"""Folders that systems leave behind, besides those whose names begin with a dot."""

_THREADS = 8  # a look at a file's size is a request to a file system, which may be far away

_HIDDEN, _LOOPS, _BESIDE = "hidden", "in a circle of links", "outside of the class folders"


@dataclass(frozen=True)
class Listing:
    """The image files of a split and the number of each one's class.

    Attributes:
        fingerprint: Of names and sizes, and of the bytes of the first and the last file.
        left_out: What lies there besides, in words.
    """

    paths: list[str]
    targets: NDArray[np.int64]
    classes: tuple[str, ...]
    fingerprint: str = ""
    left_out: tuple[str, ...] = ()


def list_images(folder: Path) -> Listing:
    """List a split's images, in an order that is the same on every machine.

    Names that begin with a dot are no data, nor are folders that systems leave behind.

    Raises:
        DataError: There is no class, one has no image, or an image is no file that can be read.
    """
    import numpy as np

    found = _Found()
    try:
        classes = _classes(folder, found)
        with ThreadPoolExecutor(_THREADS, "list") as executor:
            parts = list(executor.map(lambda name: _class(folder / name), classes))
    except OSError as error:
        raise DataError(
            f"imagefolder: {error.filename or folder}: cannot be looked through: {error.strerror}"
        ) from error
    empty = [name for name, part in zip(classes, parts, strict=True) if not part.files]
    if empty or not classes:
        what = f"none in {', '.join(empty[:5])}" if empty else "there is no class folder"
        raise DataError(
            f"imagefolder: {folder} must hold a folder of images for each class: {what}; images "
            f"are {', '.join(SUFFIXES)}"
        )
    for part in parts:
        found.add(part)
    return Listing(
        paths=[path for path, _ in found.files],
        targets=np.repeat(np.arange(len(classes)), [len(part.files) for part in parts]),
        classes=tuple(classes),
        fingerprint=_fingerprint(folder, found.files),
        left_out=found.left_out(),
    )


@dataclass
class _Found:
    """Images with their sizes, and a count of all else."""

    files: list[tuple[str, int]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    suffixes: Counter[str] = field(default_factory=Counter)

    def add(self, other: _Found) -> None:
        self.files += other.files
        self.others += other.others
        self.suffixes += other.suffixes

    def left_out(self) -> tuple[str, ...]:
        words = [f"{count} {what}" for what, count in sorted(self.others.items())]
        if self.suffixes:
            often = sorted(self.suffixes.items(), key=lambda item: (-item[1], item[0]))
            names = [suffix or "no ending" for suffix, _ in often[:4]]
            more = ", ..." if len(often) > 4 else ""
            number = sum(self.suffixes.values())
            words.append(f"{number} of other types ({', '.join(names)}{more})")
        return tuple(words)


def _classes(folder: Path, found: _Found) -> list[str]:
    """Names of the class folders; what lies beside them is counted."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_hidden(entry.name):
                found.others[_HIDDEN] += 1
            elif entry.is_dir():
                names.append(entry.name)
            else:
                found.others[_BESIDE] += 1
    return sorted(names)


def _class(folder: Path) -> _Found:
    """Look through one class, links followed."""
    found = _Found()
    folders: list[tuple[str, list[tuple[str, int]]]] = []
    _walk(str(folder), frozenset(), folders, found)
    # As torchvision's ImageFolder has them.
    found.files = [file for _, files in sorted(folders) for file in files]
    return found


def _walk(
    folder: str,
    above: frozenset[tuple[int, int]],
    folders: list[tuple[str, list[tuple[str, int]]]],
    found: _Found,
) -> None:
    status = os.stat(folder)
    me = (status.st_dev, status.st_ino)
    if me in above:
        found.others[_LOOPS] += 1
        return
    files: list[tuple[str, int]] = []
    folders.append((folder, files))
    with os.scandir(folder) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    for entry in inside:
        if _is_hidden(entry.name):
            found.others[_HIDDEN] += 1
        elif entry.is_dir():
            _walk(entry.path, above | {me}, folders, found)
        elif entry.name.lower().endswith(SUFFIXES):
            files.append((entry.path, _size(entry)))
        else:
            found.suffixes[os.path.splitext(entry.name)[1].lower()] += 1


def _size(entry: os.DirEntry[str]) -> int:
    try:
        status = entry.stat()
    except FileNotFoundError:
        raise DataError(f"{entry.path}: a link to nothing; repair or remove it") from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{entry.path}: has the name of an image, but is no file; remove it")
    if not status.st_size:
        raise DataError(f"{entry.path}: is empty, and no image; repair or remove it")
    return status.st_size


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _NO_DATA


def _fingerprint(folder: Path, files: list[tuple[str, int]]) -> str:
    digest = hashlib.sha256()
    start = len(os.path.join(str(folder), ""))
    for path, size in files:
        digest.update(os.fsencode(path[start:]) + b"\0%d\n" % size)
    for path in _ends(path for path, _ in files):
        try:
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _ends(paths: Iterable[str]) -> list[str]:
    listed = list(paths)
    return [listed[0], listed[-1]]
