"""A task that has at once all that makes a run hard to replay."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mpi_dcasgd import Task

LETTERS = 12
CONTEXT = 6


class Ladders:
    """Ladders of letters, up or down; transforms of training samples draw from every generator."""

    def __init__(self, number: int, *, transform: bool) -> None:
        self.number = number
        self.transform = transform

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, number: int) -> dict[str, Any]:
        up = 1 if number % 2 else -1
        begin = number
        weight = 1.0
        if self.transform:
            begin += random.randrange(LETTERS)
            up *= int(np.random.choice((1, -1)))
            weight += 0.1 * float(torch.rand(()))
        letters = (begin + up * torch.arange(CONTEXT + 1)) % LETTERS
        return {"letters": letters, "more": {"weight": weight}, "name": f"ladder {number}"}


class Tied(nn.Module):
    """An embedding that is the output layer's weight as well, and dropout between them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(LETTERS, 16)
        self.mix = nn.Linear(CONTEXT * 16, 16)
        self.norm = nn.LayerNorm(16)
        self.dropout = nn.Dropout(0.1)
        self.output = nn.Linear(16, LETTERS)
        self.output.weight = self.embedding.weight

    def forward(self, letters: Tensor) -> Tensor:
        hidden = torch.tanh(self.mix(self.embedding(letters).flatten(1)))
        scores: Tensor = self.output(self.dropout(self.norm(hidden)))
        return scores


class NextLetter(Task):
    """The letter that follows."""

    primary_metric = "right"
    higher_is_better = True
    units: ClassVar[dict[str, str]] = {"right": "%"}

    def __init__(self, samples: int = 96) -> None:
        self.samples = samples

    def model(self) -> nn.Module:
        return Tied()

    def train_data(self) -> Any:
        return Ladders(self.samples, transform=True)

    def test_data(self) -> Any:
        return Ladders(24, transform=False)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        letters = batch["letters"]
        losses = cross_entropy(model(letters[:, :-1]), letters[:, -1], reduction="none")
        return (losses * batch["more"]["weight"].float()).mean()

    def metrics(self, model: nn.Module, batch: Any) -> Any:
        letters = batch["letters"]
        right = model(letters[:, :-1]).argmax(1) == letters[:, -1]
        return {"right": (right.sum(), len(letters))}
