"""A rank of the world that many tests share (shared_world.py): it calls functions by name.

It waits for what to call at a socket, where, unlike in MPI, waiting takes no processor time, and
ends when the tests' end of that is closed. A function gets a communicator of the first ranks, as
many as the test asked for.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import socket
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from in_process import handlers_as_they_were
from mpi4py import MPI


@contextmanager
def surroundings(cwd: str, path: Sequence[str]) -> Iterator[None]:
    """Work in a folder, with more to import from; all is given back, what was imported too."""
    before, search, modules = os.getcwd(), list(sys.path), set(sys.modules)
    os.chdir(cwd)
    sys.path[:0] = path
    importlib.invalidate_caches()
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = search
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if any(file.startswith(folder) for folder in path):
                del sys.modules[name]


class Copied(io.StringIO):
    """Text that also goes to where it would have gone: a rank that aborts hands nothing over."""

    def write(self, text: str) -> int:
        assert sys.__stderr__ is not None
        sys.__stderr__.write(text)
        sys.__stderr__.flush()
        return super().write(text)


def perform(request: dict[str, Any]) -> dict[str, Any]:
    """Call the function; what it returned and printed, or with what it failed."""
    module, _, name = request["function"].partition(":")
    out, err = io.StringIO(), Copied()
    answer: dict[str, Any] = {"value": None, "error": ""}
    with (
        surroundings(request["cwd"], request["path"]),
        handlers_as_they_were(),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        comm = MPI.COMM_WORLD.Create_group(MPI.COMM_WORLD.group.Incl(range(request["ranks"])))
        try:
            function = getattr(importlib.import_module(module), name)
            answer["value"] = function(comm, *request["arguments"])
        except BaseException:  # handed to the test, which kills this world
            answer["error"] = traceback.format_exc()
        else:
            comm.Free()
    return {**answer, "stdout": out.getvalue(), "stderr": err.getvalue()}


def main(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        with connection.makefile("rw", encoding="utf-8") as stream:
            stream.write(json.dumps(MPI.COMM_WORLD.rank) + "\n")
            stream.flush()
            for line in stream:
                stream.write(json.dumps(perform(json.loads(line))) + "\n")
                stream.flush()


if __name__ == "__main__":
    main(sys.argv[1])
