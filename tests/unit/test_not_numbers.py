"""NaN is no class, no best result and no success."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from line_tasks import Tensors
from torch import nn

from mpi_dcasgd.cli import main
from mpi_dcasgd.drivers.observer import Evaluation
from mpi_dcasgd.errors import DataError, NonFiniteError
from mpi_dcasgd.learning.data import Dataset, DataSource
from mpi_dcasgd.learning.data.tensors import TensorSplit
from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.learning.models.base import ModelSource
from mpi_dcasgd.learning.subject import Subject
from mpi_dcasgd.learning.tasks.classification import Classification, classify
from mpi_dcasgd.record.results import Results, no_result
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.status import status
from mpi_dcasgd.runs.train import train

CPU = torch.device("cpu")

MODULE = """
import torch
from torch import nn

class Root(nn.Module):
    # The scores are finite, and the gradient of a root at zero is not.

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(4, 2)
        self.zero = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return self.line(x) + self.zero.sqrt()

def rows(n, factor=1.0):
    x = torch.linspace(-1, 1, n)[:, None].repeat(1, 4)
    return x * factor, (x[:, 0] > 0).long()

def sound():
    return rows(8), rows(8)

def bad_tests():
    return rows(8), rows(8, float("nan"))
"""


class Constant(nn.Module):
    """Gives the same scores for every sample."""

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self.scores = torch.tensor(scores)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.scores.expand(len(inputs), -1)


def dataset(classes: int) -> Dataset:
    split = TensorSplit(torch.zeros(4, 1), torch.zeros(4), CPU)
    names = tuple("abcdef"[:classes])
    return Dataset("made", split, split, classes, (1,), names)


@pytest.mark.parametrize(
    ("scores", "error", "top2"),
    [
        pytest.param((1.0, 0.0, 0.0), 0.0, 0.0, id="right"),
        pytest.param((math.nan, 0.0, 0.0), 1.0, 1.0, id="nan-would-be-the-class"),
        pytest.param((1.0, 0.0, math.nan), 1.0, 1.0, id="nan-elsewhere"),
        pytest.param((math.inf, 0.0, 0.0), 0.0, 0.0, id="infinity-is-an-answer"),
    ],
)
def test_scores_that_are_nan_are_wrong(
    scores: tuple[float, ...], error: float, top2: float
) -> None:
    data = dataset(3)
    task = Classification(ModelSource(name="none"), DataSource(name="made"), top_k=(2,))
    batch = data.test.batch(torch.arange(4).numpy(), None)
    found = task.metrics(Constant(*scores), batch)
    assert found["error"] == (4 * error, 4)
    assert found["top2_error"] == (4 * top2, 4)


def test_one_class_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    task = classify(dataset(1)).task
    monkeypatch.setitem(vars(task), "dataset", dataset(1))
    with pytest.raises(DataError, match=r"made: has one class \(a\), so that every answer is"):
        Subject.open(task, 0, CPU)


def evaluation(epoch: int, error: float, loss: float) -> Evaluation:
    return Evaluation(
        time_s=float(epoch),
        eval_s=0.1,
        version=epoch,
        samples=epoch,
        epoch=epoch,
        test={"error": error, "loss": loss},
        validation=None,
        train_loss=0.4,
        lr=0.1,
    )


def test_an_evaluation_whose_loss_is_nan_is_never_the_best() -> None:
    results = Results(Measures())
    results.add(evaluation(1, 0.1, math.nan))
    assert results.best is None
    results.add(evaluation(2, 0.9, 2.3))
    results.add(evaluation(3, 0.2, math.nan))
    assert results.best is not None
    assert results.best.epoch == 2
    assert results.not_numbers() == ["test_loss"]
    assert results.summary()["best_epoch"] == 2


def job(tmp_path: Path, function: str) -> dict[str, Any]:
    (tmp_path / "broken_data.py").write_text(MODULE)
    return {
        "algorithm": "sgd",
        "epochs": 1,
        "batch_size": 4,
        "lr": 0.1,
        "data": {"name": f"broken_data:{function}"},
        "model": {"name": "mlp", "hidden": [4]},
        "code": str(tmp_path),
        "record": {"progress": "off"},
    }


def test_a_run_whose_gradients_were_all_refused_failed(tmp_path: Path) -> None:
    model = {"name": "broken_data:Root"}
    with pytest.raises(
        NonFiniteError, match="no update was made: all 6 gradients were refused"
    ) as refused:
        train(job(tmp_path, "sound") | {"model": model}, run_dir=tmp_path / "run")
    assert RunFolder(tmp_path / "run").summary()["status"] == "failed"
    assert "at the weights that the run began with; look for NaN" in str(refused.value)
    assert "lr" not in str(refused.value), "no step was made with it"


def test_a_run_that_ends_with_nan_says_so(tmp_path: Path) -> None:
    run = train(job(tmp_path, "bad_tests"), run_dir=tmp_path / "run")
    assert run.summary["not_numbers"] == ["test_loss"]
    assert run.summary["test_error"] == 1
    assert run.summary["best_epoch"] is None
    assert not RunFolder(run.path).best_pt.exists()
    said = [event["text"] for event in run.metrics() if event["event"] == "message"]
    told = (
        "no result: test loss is not finite, while all weights are; look for NaN or infinite "
        "values in those samples, and for logarithms and divisions of zero in the model and the "
        "loss; if the training loss, "
    )
    assert any(text.startswith(told) for text in said)
    [seen] = status([run.path])[run.path]
    assert (seen.state, seen.result) == ("done", 1)
    assert seen.reason == "no result: test loss is not finite"


class Odd(Tensors):
    def metrics(self, model: nn.Module, batch: Any) -> Any:
        return {"inside": (float("nan"), 1)}


def test_a_metric_alone_that_is_nan_is_not_laid_to_the_learning_rate(tmp_path: Path) -> None:
    job = {"algorithm": "sgd", "epochs": 1, "batch_size": 8, "lr": 0.1}
    run = train(job, task=Odd(), run_dir=tmp_path / "run")
    assert run.summary["not_numbers"] == ["test_inside"]
    [told] = [row["text"] for row in run.metrics("message") if "no result" in row["text"]]
    assert told == (
        "no result: test inside is not finite, while the losses are; look at what the task's "
        "metrics() computes"
    )


class Late(Tensors):
    """The metric is sound at the first evaluation alone."""

    asked = 0

    def metrics(self, model: nn.Module, batch: Any) -> Any:
        self.asked += 1
        return {"inside": (0.5 if self.asked <= 2 else float("inf"), 1)}


def test_the_status_of_a_run_tells_that_its_last_evaluation_is_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = {"algorithm": "sgd", "epochs": 3, "batch_size": 8, "lr": 0.1}
    run = train(job, task=Late(), run_dir=tmp_path / "run")
    assert run.summary["not_numbers"] == ["test_inside"]
    [seen] = status([run.path])[run.path]
    assert (seen.state, seen.result, seen.shown) == ("done", None, "")
    assert main(["status", str(run.path)]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.endswith("run: 1 done (1 of them without a result)")
    assert line.endswith("done         epoch 3.0  no result: test inside is not finite")


def results_of(**test: float) -> Results:
    found = Results(Measures())
    values = {"error": 0.1, "loss": 0.2} | test
    found.add(evaluation(1, values["error"], values["loss"]))
    return found


def test_weights_that_are_not_finite_are_laid_to_the_learning_rate() -> None:
    results = results_of(error=math.nan, loss=math.inf)
    assert results.why_none(finite_weights=False) == (
        "no result: test error, test loss are not finite, nor are the weights that the run ended "
        "with; lower lr, or clip gradients"
    )
    assert "the training loss, 0.4, has grown" in results.why_none(finite_weights=True)
    assert results_of().why_none(finite_weights=True) == ""
    # Of a run that failed nobody has looked at the weights, and its reason says what is wrong.
    assert results.why_none(finite_weights=None) == no_result(results.not_numbers())
