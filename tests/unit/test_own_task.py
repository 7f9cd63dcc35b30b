"""A user's task: its settings, its data, its batches and its metrics."""

from __future__ import annotations

import pickle
import random
from typing import Any

import line_tasks
import numpy as np
import pytest
import torch
from line_tasks import Line, Points, Tensors

import mpi_dcasgd
from mpi_dcasgd.config.check import try_job
from mpi_dcasgd.errors import ConfigError, DataError
from mpi_dcasgd.learning.data.own import Loading, split_of
from mpi_dcasgd.learning.data.samples import SampleSplit
from mpi_dcasgd.learning.evaluation import evaluate
from mpi_dcasgd.learning.outline import sizes_of
from mpi_dcasgd.learning.subject import Subject
from mpi_dcasgd.learning.tasks import find_task
from mpi_dcasgd.runs.build import Workshop

CPU = torch.device("cpu")
JOB: dict[str, Any] = {
    "algorithm": "asgd",
    "epochs": 2,
    "batch_size": 8,
    "lr": 0.1,
    "task": {"name": "line_tasks:Line", "points": 30},
}


def job_with(**changes: Any) -> dict[str, Any]:
    return {**JOB, **changes}


def test_a_job_needs_no_model_and_no_data_beside_a_task_that_brings_them() -> None:
    job = mpi_dcasgd.load_job(JOB)
    assert (job.model.name, job.data.name) == ("task", "task")
    task = job.make_task()
    assert isinstance(task, Line)
    assert (task.points, task.width) == (30, 4)
    again = pickle.loads(pickle.dumps(job))
    assert again == job
    assert again.make_task().points == 30


def test_a_job_is_classification_unless_it_names_a_task() -> None:
    job = mpi_dcasgd.load_job("jobs/digits.yaml")
    assert job.task.name == "classification"
    smoothed = mpi_dcasgd.load_job("jobs/digits.yaml", **{"task.label_smoothing": 0.1})
    assert smoothed.make_task().label_smoothing == 0.1  # type: ignore[attr-defined]


def test_all_that_is_wrong_with_a_task_is_told_at_once() -> None:
    wrong = {"name": "line_tasks:Line", "pionts": 3, "points": 0, "width": "wide"}
    job, problems = try_job(job_with(task=wrong, lr=-1), name="mine")
    assert job is None
    assert problems == [
        "lr: got -1 (a whole number); allowed: a number > 0",
        "task.pionts: unknown; did you mean task.points?",
        "task.points: got 0 (a whole number); allowed: a whole number >= 1",
        "task.width: got 'wide' (text); allowed: a whole number",
    ]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"model": {"name": "mlp"}},
            "model.name: got 'mlp' (text), but the task line_tasks:Line brings its own model; "
            "omit it",
        ),
        (
            {"data": {"name": "digits"}},
            "data.name: got 'digits' (text), but the task line_tasks:Line brings its own data; "
            "omit it",
        ),
        (
            {"data": {"path": "here"}},
            "data.path: the task line_tasks:Line brings its own data, which has no such setting; "
            "omit it (allowed: validation, loaders)",
        ),
        (
            {"model": {"hidden": [3]}},
            "model.hidden: the task line_tasks:Line brings its own model, which has no such",
        ),
        ({"data": {"loadres": 2}}, "data.loadres: unknown; did you mean data.loaders?"),
        (
            {"task": {"name": "line_tasks.Line"}},
            "task.name: unknown 'line_tasks.Line'; did you mean",
        ),
        ({"task": {"name": "line_tasks:Lime"}}, "task.name: cannot import line_tasks:Lime"),
        ({"task": {"name": "clasification"}}, "task.name: unknown 'clasification'; did you mean"),
        ({"task": {"name": "line_tasks:Points"}}, "task.name: line_tasks:Points is not a subclass"),
        ({"task": "line_tasks:Line"}, "task: got 'line_tasks:Line' (text); allowed: a mapping"),
    ],
)
def test_what_cannot_go_with_a_task_is_told(changes: dict[str, Any], told: str) -> None:
    job, problems = try_job(job_with(**changes), name="mine")
    assert job is None
    (problem,) = problems
    assert problem.startswith(told)


def test_a_task_without_a_constructor_has_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = type("Plain", (mpi_dcasgd.Task,), {"__module__": "line_tasks"})
    monkeypatch.setattr(line_tasks, "Plain", plain, raising=False)
    job, problems = try_job(job_with(task={"name": "line_tasks:Plain"}), name="mine")
    assert job is not None, problems
    assert type(job.make_task()) is plain
    job, problems = try_job(job_with(task={"name": "line_tasks:Plain", "width": 3}), name="mine")
    assert job is None
    assert problems[0].startswith("task.width: unknown")


def test_a_constructor_that_raises_is_told_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Line, points: int = 40, width: int = 4, dropout: float = 0.0) -> None:
        raise KeyError("nothing here")

    monkeypatch.setattr(Line, "__init__", failing)
    settings = find_task("line_tasks:Line")(name="line_tasks:Line")
    with pytest.raises(ConfigError, match=r"KeyError: 'nothing here' \(.*test_own_task.py, line"):
        settings.make(None, None)  # type: ignore[arg-type]


LOADING = Loading(lambda samples: torch.utils.data.default_collate(samples), True, CPU)


def test_samples_that_draw_follow_from_the_ticket_alone() -> None:
    split = split_of(Points(20, shaken=True), "train", LOADING)
    indices = np.array([3, 1, 4])

    def drawn(seed: int) -> torch.Tensor:
        found: torch.Tensor = split.batch(indices, np.random.default_rng(seed))["y"]
        return found

    first = drawn(5)
    random.seed(99), np.random.seed(99), torch.manual_seed(99)
    assert torch.equal(drawn(5), first)
    assert not torch.equal(drawn(6), first)
    assert isinstance(split, SampleSplit)
    assert not split.in_background


def test_samples_are_asked_for_all_at_once_where_the_data_set_can() -> None:
    class Many(Points):
        def __getitems__(self, numbers: list[int]) -> list[dict[str, Any]]:
            asked.append(numbers)
            return [self[number] for number in numbers]

    asked: list[list[int]] = []
    split = split_of(Many(20, shaken=False), "train", LOADING)
    batch = split.batch(np.array([2, 0]), None)
    assert asked == [[2, 0]]
    assert batch["x"].tolist() == [[pytest.approx(0.1)], [0.0]]
    assert batch["name"] == ["point 2", "point 0"]


@pytest.mark.parametrize(
    "data",
    [
        (torch.arange(6.0)[:, None], torch.arange(6)),
        torch.utils.data.TensorDataset(torch.arange(6.0)[:, None], torch.arange(6)),
        (np.arange(6.0)[:, None], np.arange(6)),
    ],
)
def test_tensors_lie_on_the_device_and_are_served_in_their_nest(data: Any) -> None:
    split = split_of(data, "train", LOADING)
    inputs, targets = split.batch(np.array([5, 2]), None)
    assert targets.tolist() == [5, 2]
    assert inputs.tolist() == [[5.0], [2.0]]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, "train data: got None; allowed: a map-style data set"),
        (5, "train data: got int; allowed"),
        ((torch.zeros(3), torch.zeros(4)), "train data: tensors of lengths 3, 4;"),
        (torch.zeros(()), r"train data: got float32 \(\); allowed"),
        ((torch.zeros(3), "words"), "train data: str among the tensors"),
        (torch.zeros(0, 3), "train data: empty"),
        ([], "train data: empty"),
        (iter([1, 2]), "train data: got list_iterator; .*samples must have numbers"),
    ],
)
def test_what_is_no_data_is_refused(data: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        split_of(data, "train", LOADING)


def test_a_sample_that_cannot_be_had_is_named() -> None:
    class Holed(Points):
        def __getitem__(self, index: int) -> dict[str, Any]:
            if index == 7:
                raise OSError("torn page")
            return super().__getitem__(index)

    split = split_of(Holed(20, shaken=False), "train", LOADING)
    with pytest.raises(DataError, match=r"train sample 7: Holed.__getitem__ raised OSError: torn"):
        split.batch(np.array([1, 7]), None)


def test_samples_that_cannot_be_collated_are_named() -> None:
    sizes: list[torch.Tensor] = [torch.zeros(2), torch.zeros(3)]
    split = split_of(sizes, "test", LOADING)
    with pytest.raises(DataError, match=r"test samples 0, 1 cannot be collated .*RuntimeError"):
        split.batch(np.array([0, 1]), None)
    words = split_of(["a", "b"], "test", LOADING)
    with pytest.raises(DataError, match="a batch of 2 samples is list without any tensor"):
        words.batch(np.array([0, 1]), None)


def test_train_and_test_tensors_of_different_shapes_are_refused() -> None:
    class Uneven(Tensors):
        def test_data(self) -> Any:
            return {"x": torch.zeros(5, 2), "y": torch.zeros(5, 1)}

    with pytest.raises(DataError, match=r"test samples are \{x: float32 \(1, 2\).*training sampl"):
        Subject.open(Uneven(), 0, CPU)


def test_shapes_are_compared_and_memory_is_counted_where_samples_are_set_apart() -> None:
    class Uneven(Tensors):
        def test_data(self) -> Any:
            return {"x": torch.zeros(5, 2), "y": torch.zeros(5, 1)}

    with pytest.raises(DataError, match="test samples are "):
        Subject.open(Uneven(), 0, CPU, validation=0.25)
    whole, divided = sizes_of(Tensors(), 0), sizes_of(Tensors(), 0, 0.25)
    assert (divided.num_train, divided.num_validation) == (30, 10)
    assert divided.resident_bytes == whole.resident_bytes == 2 * 4 * (40 + 10)


def test_data_are_the_same_on_every_rank_whatever_was_drawn_before() -> None:
    found = []
    for before in (1, 2):
        torch.manual_seed(before)
        subject = Subject.open(Tensors(), 3, CPU)
        found.append(subject.test.batch(np.arange(10), None)["x"])
    assert torch.equal(*found)


def test_a_method_that_raises_is_told_with_its_place() -> None:
    class Broken(Tensors):
        def train_data(self) -> Any:
            return 1 / 0

    told = r"Broken.train_data: 1 problem\n  raised ZeroDivisionError: division by zero \(.*line"
    with pytest.raises(ConfigError, match=told):
        Subject.open(Broken(), 0, CPU)


def test_a_method_that_exits_is_no_end_of_the_program() -> None:
    class Leaving(Tensors):
        def train_data(self) -> Any:
            raise SystemExit(0)

    with pytest.raises(ConfigError, match=r"Leaving.train_data: 1 problem\n  raised SystemExit: 0"):
        Subject.open(Leaving(), 0, CPU)


class Weighted(Tensors):
    """Metrics whose batches weigh differently."""

    evaluation_batch = 4
    found: Any = None

    def metrics(self, model: torch.nn.Module, batch: Any) -> Any:
        if self.found is not None:
            return self.found
        x = batch["x"]
        return {"far": (float((x > 0.5).sum()), float(len(x))), "mean_x": (x.sum(), len(x))}


def test_metrics_do_not_depend_on_the_size_of_batches() -> None:
    subject = Subject.open(Weighted(), 0, CPU)
    model = subject.build_model(0)
    found = evaluate(model, subject.task, subject.test, CPU)
    batch = subject.test.batch(np.arange(10), None)
    assert found["mean_x"] == pytest.approx(float(batch["x"].mean()))
    assert found["far"] == float((batch["x"] > 0.5).sum()) / 10
    with torch.no_grad():
        assert found["loss"] == pytest.approx(float(subject.task.loss(model, batch)))


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ([("far", 1)], "metrics: returned list; allowed"),
        ({"far": 0.5}, "metrics: has 0.5 for 'far'; allowed"),
        ({"far": (1, 2, 3)}, r"metrics: has \(1, 2, 3\) for 'far'"),
        ({"far": (torch.zeros(2), 1)}, r"metrics: has \(tensor\(\[0., 0.\]\), 1\) for 'far'"),
        ({"far": (0.0, 0)}, "metrics: gave 'far' the weight 0 over a whole split"),
    ],
)
def test_metrics_that_are_no_sums_and_weights_are_refused(metrics: Any, told: str) -> None:
    subject = Subject.open(Weighted(), 0, CPU)
    subject.task.found = metrics  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=told):
        evaluate(subject.build_model(0), subject.task, subject.test, CPU)


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (torch.zeros(5, 1), r"returned a tensor of shape \(5, 1\) and float32"),
        (0.5, "returned float"),
    ],
)
def test_a_loss_that_is_evaluated_has_to_be_a_scalar(loss: Any, told: str) -> None:
    task = Tensors()
    task.loss = lambda model, batch: loss  # type: ignore[method-assign]
    subject = Subject.open(task, 0, CPU)
    with pytest.raises(ConfigError, match=f"Tensors.loss: 1 problem\n  {told}; allowed: a scalar"):
        evaluate(subject.build_model(0), task, subject.test, CPU)


def test_evaluation_waits_where_it_draws_while_this_process_trains() -> None:
    def on_a_thread(algorithm: str) -> bool:
        evaluator = Workshop.open(mpi_dcasgd.load_job(JOB, algorithm=algorithm), CPU).evaluator()
        evaluator.close()
        return evaluator._thread is not None

    assert line_tasks.Line.evaluation_draws
    assert [on_a_thread(name) for name in ("sgd", "ssgd", "asgd")] == [False, False, True]


def test_a_run_records_the_metrics_of_the_task(tmp_path: Any) -> None:
    run = mpi_dcasgd.simulate(JOB, workers=2, run_dir=tmp_path / "run", epochs=6)
    summary = run.summary
    assert summary["primary_metric"] == "inside"
    assert summary["higher_is_better"] is True
    assert summary["units"] == {"inside": "%"}
    assert 0 <= summary["test_inside"] <= summary["best_test_inside"] <= 1
    rows = run.metrics("evaluation")
    assert summary["best_test_inside"] == max(row["test_inside"] for row in rows)
    assert rows[-1]["test_loss"] < rows[0]["test_loss"]
    again = mpi_dcasgd.simulate(JOB, workers=2, run_dir=tmp_path / "again", epochs=6)
    assert again.summary["weights_sha256"] == summary["weights_sha256"]


def test_a_part_of_own_training_data_can_be_set_apart(tmp_path: Any) -> None:
    job = job_with(data={"validation": 0.2})
    run = mpi_dcasgd.simulate(job, workers=2, run_dir=tmp_path / "run")
    assert run.summary["num_samples"] == 24
    assert run.summary["best_validation_inside"] >= 0
    assert "validation_loss" in run.metrics("evaluation")[0]
