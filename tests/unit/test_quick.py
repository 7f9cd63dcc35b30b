"""Programs that import PyTorch begin and end without needless searches for garbage."""

from __future__ import annotations

import gc
import sys

import pytest

from mpi_dcasgd.quick import importing_torch

PROGRAM = """
import gc, sys
from mpi_dcasgd.cli import main

status = main(["simulate", "--json", "--timing-only", "--updates", "9", sys.argv[1], "workers=2"])
print(status, "torch" in sys.modules, gc.isenabled(), gc.get_freeze_count())
"""


def test_what_a_command_imports_is_set_apart(processes) -> None:
    finished = processes.run([sys.executable, "-c", PROGRAM, "jobs/digits.yaml"])
    status, imported, enabled, apart = finished.stdout.splitlines()[-1].split()
    assert (status, imported, enabled) == ("0", "True", "True"), str(finished)
    assert int(apart) > 100_000


@pytest.fixture
def _without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(gc.isenabled()))
    frozen.clear()


frozen: list[bool] = []


@pytest.mark.usefixtures("_without_torch")
def test_garbage_is_looked_for_again_afterwards() -> None:
    with importing_torch():
        assert not gc.isenabled()
    assert (gc.isenabled(), frozen) == (True, [False])
    with pytest.raises(ImportError), importing_torch():
        raise ImportError
    assert (gc.isenabled(), frozen) == (True, [False])


def test_nothing_is_changed_where_pytorch_is_imported_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
    frozen.clear()
    assert torch
    with importing_torch():
        assert gc.isenabled()
    assert frozen == []


@pytest.mark.usefixtures("_without_torch")
def test_a_program_that_looks_for_no_garbage_goes_on_so() -> None:
    gc.disable()
    try:
        with importing_torch():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert frozen == []
