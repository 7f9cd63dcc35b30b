"""A task whose samples are loaded one by one, and that can be asked to misbehave in many ways."""

from __future__ import annotations

import ctypes
import json
import os
import random
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mpi_dcasgd import Task


class Points:
    """Points near a line, moved by every generator there is.

    Args:
        number: Of points.
        fault: What sample 5 does, if anything.
        place: A folder. Every sample that is loaded leaves a file there.
    """

    def __init__(self, number: int, fault: str, place: str) -> None:
        self.number = number
        self.fault = fault
        self.place = place

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, number: int) -> dict[str, Any]:
        if self.place:
            (Path(self.place) / f"loaded-{number}").touch()
        if number == 5:
            self.misbehave()
        x = torch.tensor([number / self.number + 0.01 * random.random()])
        x = x + 0.01 * float(np.random.rand()) + 0.01 * torch.rand(())
        return {"x": x, "y": 3 * x + 1, "name": f"point {number}"}

    def misbehave(self) -> None:
        if self.fault == "raise":
            raise ValueError("a point is missing")
        if self.fault == "exit":
            sys.exit(3)
        if self.fault in ("print", "hang", "hang alone"):
            print("a sample prints")
        if self.fault == "hang" and in_loader():
            block(self.place)
        if self.fault == "hang alone" and in_loader():
            note_block(self.place)
            ctypes.PyDLL(None).pause()  # keeps the interpreter to itself


class Line(Task):
    """A line through points."""

    def __init__(self, points: int = 24, fault: str = "", place: str = "") -> None:
        self.points = points
        self.fault = fault
        self.place = place
        if fault == "hang at start" and in_loader():
            block(place)
        if fault == "raise at start" and in_loader():
            raise OSError("the disk is not mounted here")
        if fault == "look" and in_loader():
            look(place)

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.1), nn.Linear(4, 1))

    def train_data(self) -> Any:
        more = 1 if self.fault == "more" and in_loader() else 0
        return Points(self.points + more, self.fault, self.place)

    def test_data(self) -> Any:
        return Points(9, "", "")

    def validation_data(self) -> Any:
        return torch.linspace(0, 1, 5)[:, None] if self.fault == "mixed" else None

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return (model(batch["x"]) - batch["y"]).square().mean()


class Resident(Line):
    """The same in memory."""

    def train_data(self) -> Any:
        x = torch.linspace(0, 1, self.points)[:, None]
        return {"x": x, "y": 3 * x + 1}

    test_data = train_data


def in_loader() -> bool:
    """Whether this is a process that loads for a rank."""
    return any("loaders.parent" in word for word in sys.orig_argv)


def look(place: str) -> None:
    """Note what a loader has of its rank's MPI."""
    descriptors = []
    for each in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that by which they were listed
            descriptors.append(os.readlink(f"/proc/self/fd/{each}"))
    from mpi4py import MPI

    found = {
        "started": MPI.Is_initialized(),
        "variables": [name for name in os.environ if name.startswith(("OMPI_", "PMIX_", "PMI_"))],
        "sockets": sum(each.startswith("socket:") for each in descriptors),
        "descriptors": len(descriptors),
    }
    (Path(place) / f"seen-{os.getpid()}").write_text(json.dumps(found))


def block(place: str) -> None:
    """Tell that this process waits, and wait for ever."""
    note_block(place)
    os.read(os.pipe()[0], 1)


def note_block(place: str) -> None:
    """Tell that this process waits."""
    note = Path(place) / f"blocked-{os.getpid()}"
    note.write_text(str(os.getpid()))
    note.rename(Path(place) / "blocked")
