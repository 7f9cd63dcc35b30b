"""Tasks, classes and functions that a program hands over instead of naming them in a job."""

from __future__ import annotations

import copy
import doctest
import importlib
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import mpi_dcasgd
from mpi_dcasgd import modules
from mpi_dcasgd.config.load import job_as_yaml
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning import task as task_module
from mpi_dcasgd.learning.data import DataSource
from mpi_dcasgd.learning.models import find_model
from mpi_dcasgd.learning.task import arguments_of
from mpi_dcasgd.runs.given import path_of

SOURCE = """
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from mpi_dcasgd import Task


class Line(Task):
    def __init__(
        self,
        points: int = 50,
        width: Annotated[int, Field(ge=1)] = 8,
        *,
        sizes: tuple[int, ...] = (1,),
        extra: Any = None,
    ) -> None:
        self.points, self.width = points, width

    def model(self):
        return nn.Sequential(nn.Linear(1, self.width), nn.Tanh(), nn.Linear(self.width, 1))

    def train_data(self):
        x = torch.linspace(0, 1, self.points)[:, None]
        return x, 3 * x + 1

    def test_data(self):
        return self.train_data()

    def loss(self, model, batch):
        x, y = batch
        return (model(x) - y).square().mean()

    class Inner(Task):
        pass


BROKEN = []


class Sorted(Line):
    def __init__(self, sizes: tuple[int, ...] = (1,)) -> None:
        super().__init__()
        if BROKEN:
            raise OSError(BROKEN[0])
        self.sizes, self.cache = sorted(sizes), 0


class Plain(Line):
    points, width = 50, 8
    __init__ = Task.__init__


class Bare(Task):
    pass


class Open(Line):
    def __init__(self, points: int = 50, **settings: Any) -> None:
        settings.pop("name", None)
        super().__init__(points, **settings)


class Many(Line):
    def __init__(self, *points: int) -> None:
        super().__init__(sum(points))


@dataclass(frozen=True)
class Frozen(Task):
    points: int = 3


class Net(nn.Module):
    def __init__(self, num_classes: int, width: int = 4):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, num_classes))

    def forward(self, x):
        return self.layers(x)


def clouds(size: int = 40):
    x = torch.randn(size, 3)
    return (x, (x[:, 0] > 0).long()), (x[:9], (x[:9, 0] > 0).long())
"""
JOB = {"name": "mine", "epochs": 1, "batch_size": 8, "lr": 0.1}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module, imported as a program does, from a folder on its path."""
    (tmp_path / "given_tasks.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("given_tasks")
    sys.modules.pop("given_tasks", None)
    modules._served.pop("given_tasks", None)


def test_the_arguments_of_a_constructor_are_the_settings(own: Any) -> None:
    job = mpi_dcasgd.load_job(JOB, task=own.Line(30, sizes=(2, 3)))
    plain = job_as_yaml(job)["task"]
    assert plain == {
        "name": "given_tasks:Line",
        "points": 30,
        "width": 8,
        "sizes": [2, 3],
        "extra": None,
    }
    assert job.make_task().points == 30
    assert mpi_dcasgd.load_job(job_as_yaml(job)) == job


@pytest.mark.parametrize(
    ("given", "points"),
    [
        (lambda own: own.Line, 50),
        (lambda own: {"name": own.Line, "points": 4}, 4),
        (lambda own: {"name": "given_tasks:Line", "points": 5}, 5),
        (lambda own: own.Line(points=np.int64(6)), 6),
        (lambda own: own.Open(7, width=2), 7),
        (lambda own: own.Frozen(8), 8),
        (lambda own: own.Plain(), 50),
    ],
)
def test_a_task_is_given_in_any_of_these_ways(own: Any, given: Any, points: int) -> None:
    for job in (
        mpi_dcasgd.load_job(JOB, task=given(own)),
        mpi_dcasgd.load_job({**JOB, "task": given(own)}),
    ):
        assert job.make_task().points == points


def test_a_task_takes_the_place_of_the_jobs_with_its_model_and_data(own: Any) -> None:
    job = mpi_dcasgd.load_job("jobs/digits.yaml", task=own.Line(20), epochs=1)
    assert (job.model.name, job.data.name) == ("task", "task")
    with pytest.raises(ConfigError, match=r"model.name: got 'mlp'.*brings its own model; omit"):
        mpi_dcasgd.load_job("jobs/digits.yaml", task=own.Line, model={"name": "mlp"})
    # Back again: classification takes the model and the data of the job.
    back = mpi_dcasgd.load_job(
        job, task={"name": "classification"}, model=own.Net, data={"name": own.clouds, "size": 12}
    )
    assert (back.model.name, back.data.name) == ("given_tasks:Net", "given_tasks:clouds")
    assert back.data.size == 12


def test_a_task_that_was_made_with_a_model_and_data_brings_their_sections(own: Any) -> None:
    from mpi_dcasgd.learning.tasks.classification import Classification

    model = find_model("mlp")(name="mlp", hidden=(5,))
    data = mpi_dcasgd.load_job("jobs/digits.yaml").data
    job = mpi_dcasgd.load_job(JOB, task=Classification(model, data, top_k=(2,)))
    assert job.model == model
    assert isinstance(job.data, DataSource)
    assert job_as_yaml(job)["task"]["top_k"] == [2]


def test_settings_are_checked_and_told_all_at_once(own: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        mpi_dcasgd.load_job(JOB, task=own.Line("many", width=0), lr=-1)
    assert [line.partition(":")[0] for line in caught.value.problems] == [
        "lr",
        "task.points",
        "task.width",
    ]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (lambda own: own.Line(extra=torch.zeros(3)), "extra: got .*; allowed: what a job file can"),
        (lambda own: own.Line(points=torch.tensor(3)), r"points: got tensor\(3\); allowed: what a"),
        (lambda own: own.Line(sizes=[torch.tensor(3)]), r"sizes: got \[tensor\(3\)\] \(a list\)"),
        (lambda own: own.Line(extra=len), "extra: got <built-in function len>"),
        (lambda own: own.Line(extra={1: 2}), r"extra: got \{1: 2\}"),
        (lambda own: own.Open(name="x"), "name: is what a job calls the task"),
        (lambda own: own.Many(1, 2), r"Many: \*points cannot be named in a job"),
        (lambda own: own.Line.Inner(), "got Line.Inner: it is defined inside a class"),
        (lambda own: type("Here", (own.Line,), {"__module__": "nowhere"}), "No module named 'now"),
        (lambda own: type("Line", (own.Line,), {"__module__": "given_tasks"}), "is another by now"),
        (lambda own: SimpleNamespace(), "task: got namespace"),
    ],
)
def test_what_no_rank_could_make_is_refused_by_name(own: Any, given: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        mpi_dcasgd.load_job(JOB, task=given(own))


def changed(task: Any, **values: Any) -> Any:
    for name, value in values.items():
        setattr(task, name, value)
    return task


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"points": 5},
            "points: is 5 (a whole number) by now, but every rank makes the task anew, with 30 (a "
            "whole number); give points to the constructor",
        ),
        ({"points": torch.tensor(5)}, "points: is tensor(5) by now, but every rank makes the task"),
        ({"width": 5}, "width: is 5 (a whole number) by now, but every rank makes the task anew"),
        ({"evaluation_batch": 7}, "evaluation_batch: is 7 (a whole number) by now, but every rank"),
        ({"higher_is_better": True}, "higher_is_better: is True by now, but every rank makes the"),
    ],
    ids=str,
)
def test_what_is_set_on_a_task_later_is_refused_by_name(
    own: Any, values: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        mpi_dcasgd.load_job(JOB, task=changed(own.Line(30), **values))
    [line] = caught.value.problems
    assert line.startswith(told)


def test_what_a_constructor_makes_of_its_arguments_is_no_change(own: Any) -> None:
    for task in (own.Sorted((3, 1)), changed(own.Sorted((3, 1)), sizes=[1, 3], cache=7)):
        assert mpi_dcasgd.load_job(JOB, task=task).make_task().sizes == [1, 3]
    assert mpi_dcasgd.load_job(JOB, task=changed(own.Line(30), points=30)).make_task().points == 30
    with pytest.raises(ConfigError, match=r"sizes: is \[1, 4\] .* with \[1, 3\]"):
        mpi_dcasgd.load_job(JOB, task=changed(own.Sorted((3, 1)), sizes=[1, 4]))


def test_a_constructor_that_cannot_be_called_again_is_told(own: Any) -> None:
    task = changed(own.Sorted((3, 1)), sizes=[1, 4])
    own.BROKEN.append("no more of it")
    with pytest.raises(
        ConfigError, match=r"Sorted\(\): 1 problem\n  raised OSError: no more of it"
    ):
        mpi_dcasgd.load_job(JOB, task=task)


def test_functions_without_a_name_are_refused(own: Any) -> None:
    def local() -> None: ...

    for found, told in (
        (lambda: None, "a lambda has no name"),
        (local, "it is defined inside a function"),
        (torch.nn.Linear(3, 2), "got an object of Linear; allowed: a class or a function"),
    ):
        with pytest.raises(ConfigError, match=told):
            mpi_dcasgd.load_job("jobs/digits.yaml", model=found)


def test_a_class_of_the_program_itself_is_named_there_only(
    own: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = sys.modules["__main__"]
    kind = type("OfMain", (own.Line,), {"__module__": "__main__"})
    monkeypatch.setattr(main, "OfMain", kind, raising=False)
    assert path_of("task", kind) == "__main__:OfMain"
    job = mpi_dcasgd.load_job(JOB, task=kind(9))
    assert job.make_task().points == 9
    # A notebook defines it anew, with other settings.
    newer = type("OfMain", (own.Line,), {"__module__": "__main__", "__init__": own.Open.__init__})
    monkeypatch.setattr(main, "OfMain", newer)
    with pytest.raises(ConfigError, match="was defined again"):
        mpi_dcasgd.load_job(JOB, task=kind(9))
    monkeypatch.delattr(main, "OfMain")
    with pytest.raises(ConfigError, match="the program that is running has no OfMain; what is def"):
        mpi_dcasgd.load_job(job_as_yaml(job))


def test_a_class_that_is_defined_again_has_its_new_settings(
    own: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "points" in job_as_yaml(mpi_dcasgd.load_job(JOB, task=own.Line))["task"]

    def made(self: Any, angles: int = 4) -> None: ...

    newer = type("Line", (own.Line,), {"__module__": "given_tasks", "__init__": made})
    monkeypatch.setattr(own, "Line", newer)
    assert job_as_yaml(mpi_dcasgd.load_job(JOB, task=newer))["task"]["angles"] == 4


def test_a_task_without_a_constructor_takes_nothing(own: Any) -> None:
    for given in (own.Bare, own.Bare()):
        assert job_as_yaml(mpi_dcasgd.load_job(JOB, task=given))["task"] == {
            "name": "given_tasks:Bare"
        }
    with pytest.raises(ConfigError, match=r"task.points: unknown"):
        mpi_dcasgd.load_job(JOB, task={"name": own.Bare, "points": 3})
    with pytest.raises(TypeError):
        own.Bare(3)


def test_a_copied_task_keeps_its_arguments(own: Any) -> None:
    task = own.Line(3, width=2)
    for copied in (copy.copy(task), copy.deepcopy(task), pickle.loads(pickle.dumps(task))):
        assert arguments_of(copied) == {"points": 3, "width": 2}


def test_the_functions_take_a_task(own: Any, tmp_path: Path) -> None:
    run = mpi_dcasgd.train(
        JOB, run_dir=tmp_path / "alone", task=own.Line(16), algorithm="sgd", lr=0.01
    )
    assert run.status == "completed"
    assert run.job.task.name == "given_tasks:Line"
    simulated = mpi_dcasgd.simulate(JOB, task=own.Line(16), workers=2, run_dir=tmp_path / "two")
    assert simulated.status == "completed"
    timing = mpi_dcasgd.simulate_timing(JOB, task=own.Line(16), workers=2, updates=3)
    assert timing.updates == 3


def test_examples_are_true() -> None:
    found = doctest.testmod(task_module)
    assert found.attempted > 0
    assert found.failed == 0
