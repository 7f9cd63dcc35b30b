"""Regression and language models: losses and metrics that NumPy finds too, and other data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from mpi_dcasgd.errors import STRICT, ConfigError
from mpi_dcasgd.learning.data import DATA, Dataset, DataSource
from mpi_dcasgd.learning.data.nests import NestSplit
from mpi_dcasgd.learning.evaluation import evaluate
from mpi_dcasgd.learning.models import find_model
from mpi_dcasgd.learning.subject import Subject
from mpi_dcasgd.learning.task import Task
from mpi_dcasgd.learning.tasks import find_task

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
INPUTS = RNG.standard_normal((20, 3)).astype(np.float32)
WIDE = RNG.standard_normal((20, 2)).astype(np.float32)
WORDS = "añ€b"
NAMES = ("a", "ñ", "€", "b")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Numbers(DataSource):
    """Rows with one number to predict, or with two."""

    outputs: int = 1

    def load(self, seed: int, device: torch.device) -> Dataset:
        targets = WIDE[:, 0] if self.outputs == 1 else WIDE
        split = NestSplit((torch.tensor(INPUTS), torch.tensor(targets)), device)
        return Dataset(
            name="numbers",
            train=split,
            test=split,
            num_classes=self.outputs,
            input_shape=(3,),
            class_names=("x", "y")[: self.outputs],
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Words(DataSource):
    """Windows of four tokens of a vocabulary of four."""

    tokens: str | None = "characters"

    def load(self, seed: int, device: torch.device) -> Dataset:
        drawn = torch.randint(0, 4, (10, 5), generator=torch.Generator().manual_seed(3))
        split = NestSplit((drawn[:, :-1], drawn[:, 1:]), device)
        return Dataset(
            name="words",
            train=split,
            test=split,
            num_classes=4,
            input_shape=(4,),
            class_names=NAMES,
        )


def opened(
    name: str, data: DataSource, model: str | None = None, **settings: Any
) -> tuple[Subject, nn.Module]:
    model = model or ("mlp" if name != "language-model" else "lstm")
    small = {"width": 16, "depth": 1} if model in ("lstm", "transformer") else {}
    source = find_model(model)(name=model, **small)
    task = find_task(name)(name=name, **settings).make(source, data)
    subject = Subject.open(task, 0, CPU)
    return subject, subject.build_model(0)


def measured(subject: Subject, model: nn.Module, batch: int = 512) -> dict[str, float]:
    subject.task.evaluation_batch = batch  # type: ignore[misc]
    return evaluate(model, subject.task, subject.test, CPU)


def all_of(subject: Subject) -> Any:
    return subject.train.batch(np.arange(len(subject.train)), None)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("kind", ["squared", "absolute", "huber"])
def test_regressions_loss_and_metrics(kind: str, outputs: int) -> None:
    settings = {"loss": kind} | ({"huber_delta": 0.5} if kind == "huber" else {})
    subject, model = opened("regression", Numbers(name="numbers", outputs=outputs), **settings)
    with torch.no_grad():
        answers = model(torch.tensor(INPUTS)).double().numpy()
    away = answers - WIDE[:, :outputs]
    expected = {
        "squared": np.mean(away**2),
        "absolute": np.mean(np.abs(away)),
        "huber": np.mean(np.where(np.abs(away) < 0.5, away**2 / 2, 0.5 * (np.abs(away) - 0.25))),
    }
    loss = subject.task.loss(model, all_of(subject)).item()
    assert loss == pytest.approx(expected[kind], rel=1e-5)
    for batch in (512, 7):  # the last of them is smaller than the others
        found = measured(subject, model, batch)
        assert found == pytest.approx(
            {
                "mse": expected["squared"],
                "rmse": math.sqrt(expected["squared"]),
                "mae": expected["absolute"],
                "loss": expected[kind],
            },
            rel=1e-5,
        )


def test_regression_refuses_classes() -> None:
    digits = DATA["digits"](name="digits")
    with pytest.raises(ConfigError, match=r"targets that are floats; those of digits are whole"):
        opened("regression", digits)


def test_regression_refuses_a_model_with_other_outputs() -> None:
    subject, _ = opened("regression", Numbers(name="numbers"))
    with pytest.raises(ConfigError, match=r"shape \(20,\) the model returned \(20, 4\)"):
        subject.task.loss(nn.Linear(3, 4), all_of(subject))


class Fixed(nn.Module):
    """Scores that depend on the token alone."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor(RNG.standard_normal((4, 4)), dtype=torch.float32))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table[tokens]


def nats_of(model: Fixed, inputs: Tensor, targets: Tensor) -> np.ndarray:
    table = model.table.detach().double().numpy()
    logs = table - np.log(np.exp(table).sum(1, keepdims=True))
    return -logs[inputs.numpy(), targets.numpy()]


@pytest.mark.parametrize("kind", ["characters", "bytes", None])
def test_a_language_models_loss_and_metrics(kind: str | None) -> None:
    subject, _ = opened("language-model", Words(name="words", tokens=kind))
    model = Fixed()
    inputs, targets = all_of(subject)
    nats = nats_of(model, inputs, targets)
    assert subject.task.loss(model, (inputs, targets)).item() == pytest.approx(nats.mean())
    sizes = {"characters": [1, 2, 3, 1], "bytes": [1] * 4}.get(str(kind), [])
    bits = nats.mean() / math.log(2)
    expected = {"loss": nats.mean(), "perplexity": math.exp(nats.mean())}
    if kind is None:
        expected["bits_per_token"] = bits
    else:
        total = np.array(sizes)[targets.numpy()].sum()
        expected["bits_per_byte"] = nats.sum() / math.log(2) / total
    if kind == "characters":
        expected["bits_per_character"] = bits
    for batch in (64, 3):
        assert measured(subject, model, batch) == pytest.approx(expected, rel=1e-6)


def test_a_language_model_that_knows_nothing_needs_two_bits_for_one_of_four() -> None:
    subject, _ = opened("language-model", Words(name="words", tokens="bytes"))
    model = Fixed()
    with torch.no_grad():
        model.table.zero_()
    found = measured(subject, model)
    assert found["bits_per_byte"] == pytest.approx(2)
    assert found["perplexity"] == pytest.approx(4)
    assert subject.task.derived({"loss": 1e5}) == {"perplexity": math.inf}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Steps this small are held up by threads that wait for a core of their own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("model", ["transformer", "lstm"])
def test_a_language_model_learns_what_it_is_shown(model: str) -> None:
    subject, module = opened("language-model", Words(name="words"), model)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(100):
        loss = subject.task.loss(module, all_of(subject))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # The first token of a window cannot be told from what was before it, the rest is learnt.
    assert measured(subject, module)["perplexity"] < 1.6


def test_a_language_model_refuses_other_data_and_models() -> None:
    with pytest.raises(ConfigError, match=r"windows of tokens; those of numbers are torch.float32"):
        opened("language-model", Numbers(name="numbers"))
    with pytest.raises(ConfigError, match=r"mlp gives \(2, 4\) for 2 windows of \(4,\) tokens"):
        opened("language-model", Words(name="words"), "mlp")


class Halves(Task):
    """A task that derives metrics, rightly or not."""

    def __init__(self, value: Any = 1.0) -> None:
        self.value = value

    def metrics(self, model: nn.Module, batch: Any) -> Any:
        return {"whole": (batch.sum(), len(batch)), "loss": (0.0, len(batch))}

    def derived(self, means: Any) -> Any:
        return {"half": means["whole"] / 2, "value": self.value}


def test_derived_metrics_follow_from_the_means_of_the_whole_split() -> None:
    split = NestSplit(torch.tensor([1.0, 2.0, 6.0]), CPU)
    task = Halves()
    task.evaluation_batch = 2  # type: ignore[misc]
    assert evaluate(nn.Identity(), task, split, CPU) == {
        "whole": 3.0,
        "loss": 0.0,
        "half": 1.5,
        "value": 1.0,
    }
    with pytest.raises(ConfigError, match=r"Halves\.derived"):
        evaluate(nn.Identity(), Halves("no number"), split, CPU)
