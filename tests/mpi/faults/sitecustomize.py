"""A fault in one rank of a run that is started by its own command.

MPI_DCASGD_TEST_FAULT has the rank, a function as ``module:Class.name``, the call in which the
fault comes, and an exception or a signal by name, or EXIT to leave by C's exit, without a word.
Python imports this by itself.
"""

from __future__ import annotations

import builtins
import ctypes
import importlib.abc
import importlib.machinery
import os
import signal
import sys
from types import ModuleType
from typing import Any


def arrange(module: ModuleType, path: str, call: int, what: str) -> None:
    """Have a function fail in one of its calls."""
    names = path.split(".")
    owner: Any = module
    for name in names[:-1]:
        owner = getattr(owner, name)
    genuine, calls = getattr(owner, names[-1]), iter(range(1, sys.maxsize))

    def function(*args: Any, **keywords: Any) -> Any:
        if next(calls) == call:
            if what.startswith("SIG"):
                os.kill(os.getpid(), getattr(signal, what))
            elif what == "EXIT":
                ctypes.CDLL(None).exit(0)
            else:
                raise getattr(builtins, what)
        return genuine(*args, **keywords)

    setattr(owner, names[-1], function)


class Finder(importlib.abc.MetaPathFinder):
    """Finds one module as it is always found, and arranges the fault in it."""

    def __init__(self, function: str, call: str, what: str) -> None:
        self.module, _, self.path = function.partition(":")
        self.call, self.what = int(call), what

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            arrange(module, self.path, self.call, self.what)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


rank, *fault = os.environ.get("MPI_DCASGD_TEST_FAULT", "").split() or [""]
if rank and rank == os.environ.get("OMPI_COMM_WORLD_RANK"):
    sys.meta_path.insert(0, Finder(*fault))
