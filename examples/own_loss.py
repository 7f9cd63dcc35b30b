"""A regression with a loss of its own: quantiles of how a disease progresses, by the pinball loss.

    mpi-dcasgd run -n 5 examples/own_loss.yaml

docs/own-task.md walks through it.
"""

from functools import cached_property
from typing import Annotated

import torch
from pydantic import Field
from sklearn.datasets import load_diabetes
from torch import nn

from mpi_dcasgd import Task

Quantile = Annotated[float, Field(gt=0, lt=1)]


def pinball(answers, y, quantiles):
    """Pinball loss of every answer: over many samples it is least at the quantile."""
    error = y[:, None] - answers
    q = torch.tensor(quantiles, device=y.device)
    return torch.maximum(q * error, (q - 1) * error)


class Quantiles(Task):
    """Quantiles of the progression of diabetes in 442 patients, whose data scikit-learn has."""

    units = {"coverage": "%"}

    def __init__(self, quantiles: tuple[Quantile, ...] = (0.1, 0.5, 0.9), hidden: int = 32):
        self.quantiles, self.hidden = sorted(quantiles), hidden

    @cached_property
    def patients(self):
        features, progression = load_diabetes(return_X_y=True)
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(self.seed))
        x = torch.tensor(features, dtype=torch.float32)[order] / features.std()
        y = torch.tensor(progression, dtype=torch.float32)[order] / 100
        return x, y

    def model(self):
        first = nn.Linear(self.patients[0].shape[1], self.hidden)
        return nn.Sequential(first, nn.Tanh(), nn.Linear(self.hidden, len(self.quantiles)))

    def train_data(self):
        return tuple(tensor[:342] for tensor in self.patients)

    def test_data(self):
        return tuple(tensor[342:] for tensor in self.patients)

    def loss(self, model, batch):
        x, y = batch
        return pinball(model(x), y, self.quantiles).mean()

    def metrics(self, model, batch):
        x, y = batch
        answers = model(x)
        covered = (answers[:, 0] <= y) & (y <= answers[:, -1])
        width = answers[:, -1] - answers[:, 0]
        return {"coverage": (covered.sum(), len(y)), "width": (width.sum(), len(y))}
