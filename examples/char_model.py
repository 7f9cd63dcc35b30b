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

Count = Annotated[int, Field(ge=1)]


class Windows:
    """Windows of a text; where training windows begin is moved by chance."""

    def __init__(self, codes, window, move):
        self.codes, self.window, self.move = codes, window, move

    def __len__(self):
        return len(self.codes) // (self.window + 1)

    def __getitem__(self, index):
        start = index * (self.window + 1)
        if self.move:
            start = min(start + random.randint(0, self.window), len(self.codes) - self.window - 1)
        codes = self.codes[start : start + self.window + 1]
        return {"seen": codes[:-1], "next": codes[1:]}


class Characters(nn.Module):
    """A causal convolution between an embedding and an output layer that share their weights."""

    def __init__(self, characters, width, kernel=8):
        super().__init__()
        self.embedding = nn.Embedding(characters, width)
        self.pad = nn.ConstantPad1d((kernel - 1, 0), 0.0)
        self.mix = nn.Conv1d(width, width, kernel)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(0.1)
        self.output = nn.Linear(width, characters)
        self.output.weight = self.embedding.weight
        nn.init.normal_(self.embedding.weight, std=0.1)

    def forward(self, seen):
        known = self.embedding(seen).transpose(1, 2)
        mixed = torch.relu(self.mix(self.pad(known))).transpose(1, 2)
        return self.output(self.dropout(self.norm(mixed)))


class CharModel(Task):
    """The next character of ``text``, a UTF-8 file, in windows of so many characters."""

    primary_metric = "bits_per_character"
    units = {"accuracy": "%"}

    def __init__(self, text: str, window: Count = 64, width: Count = 64):
        self.text, self.window, self.width = text, window, width

    @cached_property
    def codes(self):
        text = Path(self.text).read_text(encoding="utf-8")
        alphabet = {character: code for code, character in enumerate(sorted(set(text)))}
        return torch.tensor([alphabet[character] for character in text])

    def windows(self, begin, end, move=False):
        length = len(self.codes)
        return Windows(self.codes[int(begin * length) : int(end * length)], self.window, move)

    def model(self):
        return Characters(len(self.codes.unique()), self.width)

    def train_data(self):
        return self.windows(0.2, 1, move=True)

    def validation_data(self):
        return self.windows(0.1, 0.2)

    def test_data(self):
        return self.windows(0, 0.1)

    def loss(self, model, batch):
        return cross_entropy(model(batch["seen"]).flatten(0, 1), batch["next"].flatten())

    def metrics(self, model, batch):
        scores, answers = model(batch["seen"]).flatten(0, 1), batch["next"].flatten()
        bits = cross_entropy(scores, answers, reduction="sum") / math.log(2)
        right = (scores.argmax(1) == answers).sum()
        return {"bits_per_character": (bits, len(answers)), "accuracy": (right, len(answers))}
