"""Runs that follow each other in one process do not pile up in its memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import mpi_dcasgd
from mpi_dcasgd.runs import leftovers
from mpi_dcasgd.runs.build import Workshop

JOB = {
    "algorithm": "asgd",
    "epochs": 1,
    "batch_size": 16,
    "lr": 0.1,
    "model": {"name": "mlp", "hidden": [4]},
    "data": {"name": "synthetic", "num_train": 64, "num_test": 16},
}


@pytest.fixture(autouse=True)
def _by_itself_python_frees_no_circle(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(leftovers, "_least_bytes", None)
    gc.collect()
    was, _ = gc.isenabled(), gc.disable()
    yield
    if was:
        gc.enable()


class Circle:
    """Refers to itself, and to long memory that has been written to."""

    def __init__(self, num_bytes: int) -> None:
        self.myself = self
        self.memory = torch.ones(num_bytes, dtype=torch.uint8)


def test_what_is_long_is_freed_before_a_run_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "GROWN_BYTES", 32 << 20)
    assert not leftovers.let_go(), "of the first run there is none before"
    left = weakref.ref(Circle(48 << 20))
    assert left() is not None
    assert leftovers.let_go()
    assert left() is None
    assert not leftovers.let_go(), "it counts from now on"


def test_what_is_short_is_left_to_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "GROWN_BYTES", 96 << 20)
    leftovers.let_go()
    left = weakref.ref(Circle(48 << 20))
    assert not leftovers.let_go()
    assert left() is not None


def test_one_simulation_after_the_other_holds_the_memory_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subjects: list[weakref.ref[Any]] = []
    alive: list[int] = []
    load = Workshop.open.__func__  # type: ignore[attr-defined]

    def opened(cls: type[Workshop], *args: Any, **options: Any) -> Workshop:
        workshop: Workshop = load(cls, *args, **options)
        alive.append(sum(each() is not None for each in subjects))
        subjects.append(weakref.ref(workshop.subject))
        return workshop

    monkeypatch.setattr(Workshop, "open", classmethod(opened))
    monkeypatch.setattr(leftovers, "GROWN_BYTES", -(1 << 40))
    for number in range(3):
        mpi_dcasgd.simulate(JOB, workers=3, run_dir=tmp_path / str(number))
    assert alive == [0, 0, 0]


def test_the_memory_of_a_process_is_that_of_the_system() -> None:
    before = leftovers.held_bytes()
    kept = torch.ones(64 << 20, dtype=torch.uint8)
    assert before + (60 << 20) < leftovers.held_bytes()
    assert before > 50 << 20
    assert kept.all()
