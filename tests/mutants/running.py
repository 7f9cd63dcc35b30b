"""Run tests against a module with a fault: each fault in a process of its own.

The process is forked from one that has loaded PyTorch and the test runner and nothing of the
package, so it starts in a few milliseconds and imports the package with the fault in it. Nothing is
written to the disk.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Literal

Verdict = Literal["caught", "survived", "timed out"]

_NO_TEST_FAILED, _FAILED_TO_RUN = 0, 2


class Trial:
    """Tests at work on a fault, one file after the other, until a test fails.

    Args:
        module: Full name of the module.
        path: Its file.
        source: What it is to be made of.
        tests: Files of tests, each with the seconds after which it is ended: a fault that hangs
            has been noticed.
    """

    def __init__(
        self, module: str, path: Path, source: str, tests: Sequence[tuple[str, float]]
    ) -> None:
        self._module, self._path, self._source = module, path, source
        self._waiting = list(tests)
        self._begun = time.monotonic()
        self._folder = Path(tempfile.mkdtemp(prefix="mutant-"))
        self._begin()

    @property
    def took_s(self) -> float:
        """Seconds since the first file was begun."""
        return time.monotonic() - self._begun

    def verdict(self) -> Verdict | None:
        """Return what came of it, or None while the tests are at work."""
        done, status = os.waitpid(self._pid, os.WNOHANG)
        if not done:
            if time.monotonic() < self._until:
                return None
            self.end()
            return "timed out"
        if os.waitstatus_to_exitcode(status) != _NO_TEST_FAILED:
            return "caught"
        if not self._waiting:
            return "survived"
        self._begin()
        return None

    def output(self) -> str:
        """What the tests of the last file have printed."""
        return (self._folder / "output").read_text(errors="replace")

    def end(self) -> None:
        """End the tests at once."""
        os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def remove(self) -> None:
        """Remove the temporary files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _begin(self) -> None:
        tests, patience_s = self._waiting.pop(0)
        self._until = time.monotonic() + patience_s
        self._pid = os.fork()
        if self._pid:
            with contextlib.suppress(OSError):  # it may have done so, or have ended
                os.setpgid(self._pid, self._pid)
            return
        status = _FAILED_TO_RUN
        try:
            os.setpgid(0, 0)
            with open(self._folder / "output", "wb") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            tempfile.tempdir = os.environ["TMPDIR"] = str(self._folder)
            status = _run(self._module, self._path, self._source, tests)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)


def _run(module: str, path: Path, source: str, tests: str) -> int:
    import pytest

    sys.meta_path.insert(0, _Finder(module, path, source))
    words = ["-x", "-q", "-m", "not slow and not mpi and not gpu", "--tb=line"]
    words += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    words += ["-p", "no:cacheprovider", "-p", "no:xdist"]
    return int(pytest.main([*words, tests]))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the module with the fault before Python finds the file."""

    def __init__(self, module: str, path: Path, source: str) -> None:
        self._module = module
        self._loader = _Loader(module, path, source)

    def find_spec(
        self, fullname: str, path: object = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._module:
            return None
        return importlib.machinery.ModuleSpec(fullname, self._loader, origin=self._loader.path)


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, module: str, path: Path, source: str) -> None:
        super().__init__(module, str(path))
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._source, self.path, "exec")
