"""Tasks as a user would write them, for tests of everything that takes a task."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import Dataset

from mpi_dcasgd.learning.task import Task


class Points(Dataset[dict[str, Any]]):
    """Points on a line, shaken with every generator that a transform may draw from."""

    def __init__(self, size: int, *, shaken: bool) -> None:
        self.size, self.shaken = size, shaken

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        x = torch.tensor([index / self.size])
        y = 3 * x + 1
        if self.shaken:
            y = y + 0.01 * (random.random() + float(np.random.rand()) + float(torch.rand(())))
        return {"x": x, "y": y, "name": f"point {index}"}


class Line(Task):
    """A line through points, with a dictionary for a batch."""

    primary_metric = "inside"
    higher_is_better = True
    units = {"inside": "%"}  # noqa: RUF012 - as a user would write it

    def __init__(
        self,
        points: Annotated[int, Field(ge=1, description="training samples")] = 40,
        width: int = 4,
        dropout: float = 0.0,
    ) -> None:
        self.points, self.width, self.dropout = points, width, dropout

    def model(self) -> nn.Module:
        layers = [nn.Linear(1, self.width), nn.Dropout(self.dropout), nn.Linear(self.width, 1)]
        return nn.Sequential(*layers)

    def train_data(self) -> Any:
        return Points(self.points, shaken=True)

    def test_data(self) -> Any:
        return Points(10, shaken=False)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return (model(batch["x"]) - batch["y"]).square().mean()

    def metrics(self, model: nn.Module, batch: Any) -> Mapping[str, Any]:
        near = (model(batch["x"]) - batch["y"]).abs() < 0.5
        return {"inside": (near.sum(), near.numel())}


class Tensors(Line):
    """The same line, its data tensors in memory."""

    def train_data(self) -> Any:
        x = torch.linspace(0, 1, self.points)[:, None]
        return {"x": x, "y": 3 * x + 1}

    def test_data(self) -> Any:
        x = torch.rand(10, 1)
        return {"x": x, "y": 3 * x + 1}


class Unmeasured(Task):
    """A line whose metrics nobody will see, for they are called otherwise."""

    def model(self) -> nn.Module:
        return nn.Linear(1, 1)

    def train_data(self) -> Any:
        x = torch.linspace(0, 1, 16)[:, None]
        return x, 3 * x + 1

    def test_data(self) -> Any:
        return self.train_data()

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        x, y = batch
        return (model(x) - y).square().mean()

    def metric(self, model: nn.Module, batch: Any) -> Any:
        return {"inside": (1.0, len(batch))}


class Unready(Tensors):
    """A task that can be made only where its data are."""

    def __init__(self) -> None:
        raise OSError("no such folder")
