"""Methods of a user's task that look like those that training calls, and that nothing calls."""

from __future__ import annotations

import importlib
import io
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from line_tasks import Tensors, Unmeasured

import mpi_dcasgd
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.declared import check_declared
from mpi_dcasgd.learning.near_hooks import HOOKS, near_hooks, unread

JOB = {"algorithm": "sgd", "epochs": 1, "batch_size": 4, "lr": 0.1}


def method(self: Any, *_: Any) -> Any:
    return {}


def task(base: type = mpi_dcasgd.Task, **body: Any) -> Any:
    return type("Mine", (base,), {"__module__": "nowhere", **body})()


def test_all_methods_of_a_task_are_known() -> None:
    assert set(HOOKS) == {
        *("model", "train_data", "test_data", "validation_data", "collate"),
        *("loss", "metrics", "curvature", "derived"),
    }


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("metric", "metrics"),
        ("metircs", "metrics"),
        ("derive", "derived"),
        ("validate_data", "validation_data"),
        ("val_data", "validation_data"),
        ("collate_fn", "collate"),
        ("train_dataset", "train_data"),
        ("loss_fn", "loss"),
    ],
)
def test_what_was_probably_meant_is_told(name: str, meant: str) -> None:
    for found in (method, property(method), staticmethod(method), cached_property(method)):
        assert near_hooks(task(**{name: found})) == {name: meant}
    told = f"Mine.{name}: nothing calls it; did you mean {meant}?"
    assert unread(task(**{name: method})) == [told]


@pytest.mark.parametrize("name", ["train_sampler", "configure_optimizers"])
def test_what_there_is_nothing_like_here_is_told(name: str) -> None:
    [line] = unread(task(**{name: method}))
    assert line.startswith(f"Mine.{name}: nothing calls it; ")


@pytest.mark.parametrize(
    "name", ["plot", "data", "train", "windows", "evaluate", "samples", "accuracy", "_metric"]
)
def test_a_method_of_another_name_is_nobodys_business(name: str) -> None:
    assert unread(task(**{name: method})) == []


def test_beside_the_method_that_was_meant_it_is_a_helper() -> None:
    assert unread(task(metric=method, metrics=method)) == []
    assert unread(task(Tensors, train_dataset=method)) == []
    with_attribute = task(loss_fn=method)
    with_attribute.loss = torch.nn.functional.mse_loss
    assert unread(with_attribute) == []


def test_what_other_code_of_the_module_calls_is_a_helper() -> None:
    class Mine(mpi_dcasgd.Task):
        def metric(self) -> Any:
            return {}

        def val_data(self) -> Any:
            return {}

        def derive(self) -> Any:
            return [self.metric() for _ in range(3)], getattr(self, "val_data")()  # noqa: B009

    Mine.__module__ = "nowhere"  # this one mentions them all
    assert near_hooks(Mine()) == {"derive": "derived"}


OTHERS = {
    "a function beside it": "def rate(task):\n    return task.metric()",
    "a list in a method": (
        "class Rated(Mine):\n    def rate(self):\n"
        "        return [getattr(self, name) for name in ('metric', 'loss')]"
    ),
    "a list in a class": "class Rated(Mine):\n    WANTED = ['metric']",
    "values in a class": "class Rated(Mine):\n    WANTED = {'score': 'metric'}",
    "a list beside it": "WANTED = ['metric']",
    "another name in a class": "class Rated(Mine):\n    score = Mine.metric",
}


@pytest.mark.parametrize("other", [None, *OTHERS])
def test_what_the_module_mentions_outside_of_the_class_is_a_helper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str | None
) -> None:
    own = "class Mine(mpi_dcasgd.Task):\n    def metric(self):\n        return {}\n"
    name = f"mentions_{[None, *OTHERS].index(other)}"
    text = f"import mpi_dcasgd\n{own}{OTHERS[other] if other else ''}\n"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(name)
    kind = getattr(module, "Rated", module.Mine)
    assert near_hooks(kind()) == ({} if other else {"metric": "metrics"})


def test_methods_of_other_libraries_are_theirs() -> None:
    class Module:
        def training_step(self) -> None: ...

    class Mine(mpi_dcasgd.Task, Module):
        pass

    assert unread(Mine()) == []


def test_a_method_that_is_needed_is_not_left_out_for_another() -> None:
    with pytest.raises(ConfigError) as caught:
        check_declared(task(train_dataset=method, loss=method, metric=method))
    assert caught.value.problems == [
        "train_dataset: nothing calls it, and train_data is missing; did you mean train_data?"
    ]


def test_a_run_tells_it_and_goes_on(tmp_path: Path) -> None:
    shown = io.StringIO()
    run = mpi_dcasgd.train(JOB, run_dir=tmp_path / "run", task=Unmeasured, show=shown)
    assert run.status == "completed"
    told = "Unmeasured.metric: nothing calls it; did you mean metrics?"
    assert re.findall(r"^.*nothing calls it.*$", shown.getvalue(), re.MULTILINE) == [told]
    assert told in [row.get("text") for row in run.metrics("message")]
