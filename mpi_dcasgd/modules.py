"""Modules of a user's own: looked for beside the job, and never mistaken for another job's.

Within `searching`, a module is found in the folders that it names, then in the current folder, then
wherever Python looks. What is installed, and what comes with Python, goes before all of these: a
``json.py`` beside a job must not replace the one that PyTorch imports.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from threading import RLock
from types import ModuleType

from mpi_dcasgd.errors import UserError, did_you_mean
from mpi_dcasgd.places import is_installed, place_of

_PACKAGE = Path(__file__).parent
_lock = RLock()


@dataclass(eq=False)
class _Search:
    """One block of `searching`.

    Attributes:
        folders: Where it looks.
        fresh: Whether a module whose file has changed is imported again.
        begun: Whether something has been imported in it.
    """

    folders: tuple[Path, ...]
    fresh: bool
    begun: bool = False


_searches: list[_Search] = []
"""The blocks that are open; the first of them goes before the others."""

_served: dict[str, Path] = {}
"""Modules of the top level that jobs had imported, and the folders that they were found in."""

_stamps: dict[str, tuple[int, int]] = {}
"""Time and size of the files of these modules, and of those within them, when they were loaded."""


class _Finder(MetaPathFinder):
    """Finds modules in the folders that are searched."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None:  # within a package, which knows its place
            return None
        spec = _beside(name)
        if spec is not None and spec.origin is not None:
            _served[name] = _folder_of(spec)
            for stamped in [each for each in _stamps if _is_within(each, name)]:
                del _stamps[stamped]
            _stamps[name] = _stamp_of(spec.origin)
        return spec


_finder = _Finder()


@contextmanager
def searching(*folders: Path | str | None, fresh: bool = False) -> Iterator[None]:
    """Look for modules in these folders, and then in the current one, within the block.

    ``sys.path`` and ``sys.meta_path`` are as they were afterwards. Within another such block the
    folders of that one go first.

    Args:
        *folders: The folders, the first one first; None for none.
        fresh: Import a module again whose file has changed since it was imported by such a block.

    Example:
        >>> with searching("jobs"):
        ...     "jobs" in looked_in()
        True
    """
    places = [Path(os.path.abspath(folder)) for folder in folders if folder is not None]
    with suppress(OSError):  # it has been removed
        places.append(Path.cwd())
    search = _Search(tuple(dict.fromkeys(places)), fresh)
    with _lock:
        for place in search.folders:
            sys.path_importer_cache.pop(str(place), None)  # files may have come since
        _searches.append(search)
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
        # Processes that are started anew, to load samples, are told no more than this.
        added = [str(place) for place in search.folders if str(place) not in sys.path]
        sys.path.extend(added)
    try:
        yield
    finally:
        with _lock:
            _stamp()
            _searches.remove(search)
            if not _searches:
                sys.meta_path.remove(_finder)
            for path in added:
                if path in sys.path:
                    sys.path.remove(path)


def searched() -> list[Path]:
    """List the folders in which modules are looked for before Python's own places.

    Example:
        >>> searched()
        []
    """
    return list(dict.fromkeys(folder for search in _searches for folder in search.folders))


def looked_in() -> str:
    """Name the places where modules are looked for, for messages.

    Example:
        >>> looked_in()
        'where Python looks'
    """
    folders = [str(folder) for folder in searched()]
    if not folders:
        return "where Python looks"
    return f"{', '.join(folders)} and on PYTHONPATH"


def import_module(name: str) -> ModuleType:
    """Import a module, a user's own from the folders that are searched.

    Args:
        name: ``package.module``.

    Raises:
        UserError: There is none, or it raises while it is imported: with the file and the line.
    """
    with _lock:
        if len(_searches) == 1 and not _searches[0].begun:
            _searches[0].begun = True
            _forget_others(fresh=_searches[0].fresh)
        known = set(sys.modules)
        try:
            module = _imported(name)
            if name not in known:
                _note_others(folder_of(name), known)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if missing and _is_within(name, missing):
                raise UserError(f"{error}{_near(name)} (looked in {looked_in()})") from error
            raise UserError(_raised(name, error)) from error
        except (Exception, SystemExit) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(_raised(name, error)) from error
        finally:
            _stamp()
    return module


def _imported(name: str) -> ModuleType:
    """Import a module, also one that imports a torchvision which was built for another PyTorch."""
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    from mpi_dcasgd.vision import torchvision  # imports PyTorch

    torchvision()
    return importlib.import_module(name)


def folder_of(module: str) -> Path | None:
    """Return the folder in which a module of a user's own was found.

    Args:
        module: One that has been imported.

    Returns:
        The folder of its file, or the one above its package; None for what is installed, or has no
        file of its own.
    """
    top = sys.modules.get(module.partition(".")[0])
    places = list(getattr(top, "__path__", []))
    file = getattr(top, "__file__", None) or (f"{places[0]}/__init__.py" if places else None)
    if top is None or file is None or top.__name__ == "__main__" or is_installed(Path(file)):
        return None
    return Path(os.path.abspath(file)).parents[1 if places else 0]


def taken_elsewhere(module: str) -> str:
    """Say that a module is not the one in the first folder that is searched, if it is not.

    Args:
        module: One that has been imported.

    Returns:
        A line, or an empty string.
    """
    top = module.partition(".")[0]
    taken = getattr(sys.modules.get(top), "__file__", None)
    for folder in searched():
        spec = PathFinder.find_spec(top, [str(folder)])
        if spec is None or spec.origin is None:
            continue
        if taken is None or _same(spec.origin, taken):
            return ""
        why = ", which is installed" if is_installed(Path(taken)) else ""
        return f"{top} is taken from {taken}{why}; {spec.origin} is not used"
    return ""


def _beside(name: str) -> ModuleSpec | None:
    """The module of this name in a folder that is searched, if it may be taken from there."""
    if name in sys.stdlib_module_names or name == _PACKAGE.name:
        return None
    for folder in searched():
        spec = PathFinder.find_spec(name, [str(folder)])
        if spec is not None and spec.origin is not None:
            return None if _installed(name) else spec
    return None


def _installed(name: str) -> bool:
    places = [place for place in sys.path if is_installed(Path(place) / "x")]
    found = PathFinder.find_spec(name, places)
    return found is not None and found.origin is not None


def _forget_others(*, fresh: bool) -> None:
    """Forget modules of folders that are not searched now, so that they hide no others."""
    gone = set()
    for name, folder in _served.items():
        spec = _beside(name) or PathFinder.find_spec(name)
        there = spec is not None and spec.origin is not None and _folder_of(spec) == folder
        if not there or (fresh and _changed(name)):
            gone.add(folder)
    for name in [name for name, folder in _served.items() if folder in gone]:
        del _served[name]
        for each in _within(name):
            del sys.modules[each]
            _stamps.pop(each, None)


def _note_others(folder: Path | None, known: set[str]) -> None:
    """Remember what an import has brought from a folder on PYTHONPATH, too."""
    for new in sys.modules.keys() - known:
        if folder is not None and "." not in new and folder_of(new) == folder:
            _served.setdefault(new, folder)


def _changed(name: str) -> bool:
    files = {each: getattr(sys.modules[each], "__file__", None) for each in _within(name)}
    return any(each in _stamps and _stamps[each] != _stamp_of(files[each]) for each in files)


def _stamp() -> None:
    """Remember the files of modules, those of packages among them, that are not known yet."""
    for each in (each for name in _served for each in _within(name)):
        file = getattr(sys.modules[each], "__file__", None)
        if file is not None:
            _stamps.setdefault(each, _stamp_of(file))


def _stamp_of(file: str | None) -> tuple[int, int]:
    try:
        found = os.stat(file or "")
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _within(name: str) -> list[str]:
    return [each for each in sys.modules if _is_within(each, name)]


def _is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _folder_of(spec: ModuleSpec) -> Path:
    assert spec.origin is not None
    file = Path(spec.origin)
    return file.parent.parent if spec.submodule_search_locations else file.parent


def _near(name: str) -> str:
    if "." in name:
        return ""
    names = [file.stem for folder in searched() for file in sorted(folder.glob("*.py"))]
    return did_you_mean(name, names)


def _raised(name: str, error: BaseException) -> str:
    reason = error.msg if isinstance(error, SyntaxError) else str(error)
    reason = reason.strip().partition("\n")[0]
    said = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    return f"{name} raised {said}{place_of(error)}"


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
