"""Source files of a user's own code: named, and told apart by their content."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from mpi_dcasgd.modules import folder_of
from mpi_dcasgd.places import is_installed

MAIN = "__main__"
_PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Source:
    """Source of one module.

    Attributes:
        module: Its name.
        file: Its file; empty for what was typed into a notebook.
        sha256: Of its content; empty where that cannot be read.
    """

    module: str
    file: str
    sha256: str

    @property
    def place(self) -> Path:
        """Path of the file relative to the folder that its module is found in."""
        parts = self.module.split(".")
        if Path(self.file).name == "__init__.py":
            return Path(*parts, "__init__.py")
        return Path(*parts).with_suffix(".py")


def sources_of(names: Iterable[str]) -> list[Source]:
    """Find the sources of what a job names, and of the modules beside it that it imported.

    Args:
        names: ``package.module:Name``, each imported already; our own modules are left out.

    Example:
        >>> import colorsys
        >>> [source.module for source in sources_of(["colorsys:rgb_to_hsv"])]
        ['colorsys']
    """
    found: dict[str, Source] = {}
    folders: set[Path] = set()
    for name in names:
        module, _, attribute = name.partition(":")
        loaded = sys.modules.get(module)
        if loaded is None or _is_ours(loaded):
            continue
        found.setdefault(module, _source(loaded, attribute))
        if folder := _folder(loaded):
            folders.add(folder)
    if not folders:  # of most jobs: to ask for the file of each module that is loaded takes long
        return list(found.values())
    for module, loaded in sorted(sys.modules.items()):
        if not isinstance(loaded, ModuleType) or loaded.__name__ in (MAIN, *found):
            continue
        beside = _file(loaded) and _folder(loaded) in folders
        if beside and loaded.__name__ == module and not _is_ours(loaded):
            found[module] = _source(loaded, "")
    return list(found.values())


def text_of(source: Source, names: Iterable[str]) -> bytes | None:
    """Read a source, or None if it is no text that can be read.

    Args:
        source: One of `sources_of`.
        names: What the job names, for what was typed into a notebook.
    """
    if source.file:
        return _read(source.file)
    typed = [name.partition(":")[2] for name in names if name.startswith(f"{source.module}:")]
    texts = [_typed(sys.modules[source.module], name) for name in typed]
    return "\n\n".join(texts).encode() or None


def changes(then: Sequence[Mapping[str, Any]], now: Sequence[Source]) -> list[str]:
    """Say which sources are not what they were, one line each.

    Args:
        then: As every start of the run recorded them: ``module``, ``file`` and ``sha256``.
        now: As they are.
    """
    lines = []
    for source in now:
        where = source.file or "a notebook"
        olds = [each for each in then if each.get("module") == source.module]
        if olds and olds[-1].get("sha256") != source.sha256:
            file = olds[-1].get("file")
            was = f"; it was {file}" if file and file != source.file else ""
            lines.append(f"{source.module} ({where}) has changed since the run{was}")
        elif any(old.get("sha256") != source.sha256 for old in olds):
            lines.append(f"{source.module} ({where}) was changed in the course of the run")
    return lines


def _source(module: ModuleType, attribute: str) -> Source:
    file = _file(module)
    content = _read(file) if file else _typed(module, attribute).encode()
    digest = hashlib.sha256(content).hexdigest() if content else ""
    return Source(module.__name__, file, digest)


def _file(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    return str(Path(file).absolute()) if file and Path(file).is_file() else ""


def _folder(module: ModuleType) -> Path | None:
    if module.__name__ == MAIN:
        file = _file(module)
        return Path(file).parent if file and not is_installed(Path(file)) else None
    return folder_of(module.__name__)


def _is_ours(module: ModuleType) -> bool:
    return _PACKAGE in Path(getattr(module, "__file__", None) or "").parents


def _typed(module: ModuleType, attribute: str) -> str:
    """The text of a class or function that was typed into a notebook, where Python has kept it."""
    try:
        return inspect.getsource(getattr(module, attribute))
    except (AttributeError, OSError, TypeError):
        return ""


def _read(file: str) -> bytes | None:
    try:
        return Path(file).read_bytes()
    except OSError:
        return None
