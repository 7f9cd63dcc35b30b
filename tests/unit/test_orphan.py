"""A rank that has lost its launcher ends at once, or notes it where there is a run to save."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from mpi_dcasgd.drivers import orphan
from mpi_dcasgd.drivers.orphan import Orphanage

RANK = """
import signal, sys
from mpi_dcasgd.drivers.orphan import launcher
launcher.end_with_launcher()
{more}
print("ready", flush=True)
while not launcher.gone:
    signal.pause()
print("saved", flush=True)
"""
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {rank!r}])
print(child.pid, flush=True)
input()
"""


class Family:
    """A launcher and its rank, whose words come through one pipe."""

    def __init__(self, parent: str, more: str) -> None:
        program = parent.format(rank=RANK.format(more=more))
        self.launcher = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        words = {self.line(), self.line()}  # in either order
        self.rank = int((words - {"ready"}).pop())

    def line(self) -> str:
        """Return a line, or nothing once nobody is left who could write one."""
        assert self.launcher.stdout is not None
        return self.launcher.stdout.readline().strip()


@pytest.fixture
def families() -> Iterator[list[Family]]:
    found: list[Family] = []
    yield found
    for family in found:
        with suppress(ProcessLookupError):  # as it should be: all of its group are gone
            os.killpg(family.launcher.pid, signal.SIGKILL)
        family.launcher.communicate()


def test_a_rank_ends_with_its_launcher(families: list[Family]) -> None:
    family = Family(PARENT, "")
    families.append(family)
    family.launcher.kill()
    assert family.line() == ""  # the end of the file: both are gone, and nothing was saved


def test_the_server_outlives_it_to_save_the_run(families: list[Family]) -> None:
    family = Family(PARENT, "launcher.outlive_launcher()")
    families.append(family)
    family.launcher.kill()
    assert [family.line(), family.line()] == ["saved", ""]


def test_the_end_of_a_launchers_thread_is_not_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel sends the signal for the thread that has started this process, too.
    monkeypatch.setattr(os, "_exit", lambda status: pytest.fail("this process would have ended"))
    asked: list[Orphanage] = []
    monkeypatch.setattr(Orphanage, "_ask_kernel", lambda self: asked.append(self))
    rank = Orphanage()
    handler = signal.getsignal(orphan.SIGNAL)
    try:
        rank.end_with_launcher()
        rank.outlive_launcher()
        signal.raise_signal(orphan.SIGNAL)
        assert not rank.gone
        assert asked == [rank, rank]
        monkeypatch.setattr(os, "getppid", lambda: 1)
        signal.raise_signal(orphan.SIGNAL)
        assert rank.gone
    finally:
        signal.signal(orphan.SIGNAL, handler)
