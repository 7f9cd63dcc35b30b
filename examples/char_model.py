"""A character model of a text of your own: guess each character from those before it.

    mpi-dcasgd run -n 5 examples/char_model.yaml

docs/own-task.md walks through it.
"""

import math
import random
from functools import cached_property
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import cross_entropy

from mpi_dcasgd import Task


class Windows:
    """Windows of a text; where training windows begin is moved by chance."""

    def __init__(self, codes, context, move):
        self.codes, self.context, self.move = codes, context, move

    def __len__(self):
        return len(self.codes) // (self.context + 1)

    def __getitem__(self, index):
        start = index * (self.context + 1)
        if self.move:
            start = random.randint(0, min(start + self.context, len(self.codes) - self.context - 1))
        window = self.codes[start : start + self.context + 1]
        return {"seen": window[:-1], "next": window[1:]}


class Characters(nn.Module):
    """A GRU between an embedding and an output layer that share their weights."""

    def __init__(self, characters, width):
        super().__init__()
        self.embedding = nn.Embedding(characters, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(0.1)
        self.output = nn.Linear(width, characters)
        self.output.weight = self.embedding.weight
        nn.init.normal_(self.embedding.weight, std=0.1)

    def forward(self, seen):
        hidden, _ = self.gru(self.embedding(seen))
        return self.output(self.dropout(self.norm(hidden)))


class CharModel(Task):
    """The next character of a text.

    Args:
        text: A UTF-8 file. Its last tenth is for testing, the tenth before for validation.
    """

    primary_metric = "bits_per_character"
    units = {"accuracy": "%"}  # noqa: RUF012

    def __init__(
        self,
        text: str,
        context: Annotated[int, Field(ge=1, description="characters of a window")] = 64,
        width: Annotated[int, Field(ge=1, description="units of the GRU")] = 64,
    ):
        self.text, self.context, self.width = text, context, width

    @cached_property
    def codes(self):
        text = Path(self.text).read_text(encoding="utf-8")
        alphabet = {character: code for code, character in enumerate(sorted(set(text)))}
        return torch.tensor([alphabet[character] for character in text])

    def windows(self, begin, end, move=False):
        characters = len(self.codes)
        part = self.codes[int(begin * characters) : int(end * characters)]
        return Windows(part, self.context, move)

    def model(self):
        return Characters(len(self.codes.unique()), self.width)

    def train_data(self):
        return self.windows(0, 0.8, move=True)

    def validation_data(self):
        return self.windows(0.8, 0.9)

    def test_data(self):
        return self.windows(0.9, 1)

    def loss(self, model, batch):
        return cross_entropy(model(batch["seen"]).flatten(0, 1), batch["next"].flatten())

    def metrics(self, model, batch):
        scores, answers = model(batch["seen"]).flatten(0, 1), batch["next"].flatten()
        bits = cross_entropy(scores, answers, reduction="sum") / math.log(2)
        right = (scores.argmax(1) == answers).sum()
        return {
            "bits_per_character": (bits, len(answers)),
            "accuracy": (right, len(answers)),
        }
