"""The weights of the best evaluation: chosen, written, and gone on with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from stop_after import StopAfter
from torch import nn
from toy import CPU, toy_model, toy_subject

from mpi_dcasgd.cli import main
from mpi_dcasgd.config.load import load_job
from mpi_dcasgd.drivers.best_weights import WRITE_EVERY_S, BestWeights
from mpi_dcasgd.drivers.evaluator import Evaluator, WeightsCopy
from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.learning.data import load_dataset
from mpi_dcasgd.learning.evaluation import evaluate
from mpi_dcasgd.learning.flat import FlatModel
from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.learning.models import build_model
from mpi_dcasgd.learning.tasks.classification import classify
from mpi_dcasgd.record.checkpoints import checkpoints_in
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.result import Run
from mpi_dcasgd.runs.train import train

WORDS = ["algorithm=sgd", "epochs=4", "lr=0.1", "record.progress=off"]


class Kept:
    """The best of a series of evaluations, on a clock that is set by hand."""

    def __init__(self, measures: Measures) -> None:
        self.now = 0.0
        self.written: list[int] = []
        self.fails = False
        self.best = BestWeights(measures, self._write, lambda: self.now)
        self.flat = FlatModel(toy_model(), CPU)

    def _write(self, model: nn.Module, version: int) -> None:
        if self.fails:
            raise RunFolderError("best.pt: cannot be written: disk full")
        assert torch.equal(self.flat.weights, weights_of(version))
        self.written.append(version)

    def look(self, version: int, **metrics: float) -> None:
        self.best.look(self.flat, metrics, weights_of(version), version)

    @property
    def version(self) -> int:
        version: int = self.best.state_dict()["version"]
        return version


def weights_of(version: int) -> torch.Tensor:
    return torch.full_like(FlatModel(toy_model(), CPU).weights, float(version))


@pytest.mark.parametrize(("higher", "best"), [(False, 3), (True, 2)])
def test_the_best_is_chosen_by_the_primary_metric_in_its_direction(higher: bool, best: int) -> None:
    kept = Kept(Measures("accuracy", higher_is_better=higher))
    for version, value in enumerate([math.nan, 0.5, 0.9, 0.4, 0.9, 0.4, math.nan]):
        kept.look(version, accuracy=value, loss=float(-version))
    assert kept.version == best
    kept.best.flush(kept.flat)
    assert kept.written == [best]


def test_without_a_number_there_is_no_best() -> None:
    kept = Kept(Measures())
    kept.look(1, error=math.nan)
    kept.look(2, loss=0.1)
    kept.best.flush(kept.flat)
    assert kept.written == []


def test_the_best_is_written_from_time_to_time_and_each_only_once() -> None:
    kept = Kept(Measures())
    kept.look(1, error=0.3)
    assert kept.written == []
    kept.now = WRITE_EVERY_S
    kept.look(2, error=0.4)  # no better, but it is time
    kept.look(3, error=0.2)
    assert kept.written == [1]
    kept.now += WRITE_EVERY_S
    kept.look(4, error=0.9)
    kept.best.flush(kept.flat)
    assert kept.written == [1, 3]


def test_a_file_that_cannot_be_written_is_a_complaint_and_no_end() -> None:
    kept = Kept(Measures())
    kept.fails = True
    kept.look(1, error=0.3)
    kept.best.flush(kept.flat)
    assert kept.best.complaint() == (
        "the best weights were not written: best.pt: cannot be written: disk full"
    )
    assert kept.best.complaint() == ""
    kept.fails = False
    kept.best.flush(kept.flat)
    assert kept.written == [1]


@pytest.mark.parametrize("background", [False, True])
def test_an_evaluator_keeps_the_copy_that_it_evaluated(background: bool) -> None:
    kept = Kept(Measures())
    evaluator = Evaluator(kept.flat, toy_subject(), background=background)
    evaluator.best = kept.best
    evaluator.submit(WeightsCopy(weights_of(0), 0, 8, 0, 0.0, 0.0, 0.1))
    evaluator.submit(WeightsCopy(weights_of(1), 1, 16, 0, 0.0, 0.0, 0.1))
    errors = [scored.test["error"] for scored in evaluator.finish()]
    assert kept.written == [errors.index(min(errors))]


def go(folder: Path, *words: str, stop_after: int = 10**9) -> RunFolder:
    job = load_job("jobs/digits.yaml", [*WORDS, *words])
    train(job, run_dir=folder, argv=["test"], stop=StopAfter(stop_after))
    return RunFolder(folder)


def test_the_best_weights_have_the_error_that_the_summary_says(tmp_path: Path) -> None:
    # A rate that is too large at the end, so that the last evaluation is not the best.
    run = go(tmp_path / "run", "schedule={name: step, milestones: [3], factor: 30}")
    summary = run.summary()
    assert summary["best_test_error"] < summary["test_error"]
    saved = torch.load(run.best_pt, weights_only=True)
    assert saved["version"] == summary["best_epoch"] * 90
    job = load_job(run.job_yaml)
    data = load_dataset(job.data, job.seed, CPU)
    task = classify(data).task
    model = build_model(job.model, data.input_shape, data.num_classes)
    model.load_state_dict(Run(run.path).weights(best=True))
    assert evaluate(model, task, data.test, CPU)["error"] == summary["best_test_error"]
    model.load_state_dict(Run(run.path).weights())
    assert evaluate(model, task, data.test, CPU)["error"] == summary["test_error"]


def test_a_job_may_do_without(tmp_path: Path) -> None:
    run = go(tmp_path / "run", "checkpoint.best=false", "epochs=1")
    assert not run.best_pt.exists()
    with pytest.raises(RunFolderError, match=r"best\.pt: no such file; .* checkpoint.best: false"):
        run.weights(best=True)


def contents(run: RunFolder) -> dict[str, Any]:
    found = torch.load(run.best_pt, weights_only=True)
    return {"version": found["version"], **found["state_dict"]}


def same(one: RunFolder, other: RunFolder) -> bool:
    mine, its = contents(one), contents(other)
    return mine.keys() == its.keys() and all(
        torch.equal(torch.as_tensor(mine[key]), torch.as_tensor(its[key])) for key in mine
    )


def test_a_resumed_run_has_the_best_weights_of_the_run_without_a_break(
    tmp_path: Path, every_checkpoint: None
) -> None:
    """What a killed run wrote after its checkpoint does not count; what was before it does."""
    words = [
        "schedule={name: step, milestones: [1], factor: 100}",
        "checkpoint={every: 1, every_s: null, keep: 9}",
    ]
    whole = go(tmp_path / "whole", *words)
    assert contents(whole)["version"] == 90
    cut = go(tmp_path / "cut", *words, stop_after=300)
    for path in checkpoints_in(cut.checkpoints):
        if int(path.stem[-9:]) > 180:
            path.unlink()
    torch.save({"state_dict": {}, "version": 299}, cut.best_pt)
    cut = go(tmp_path / "cut", *words)
    assert cut.summary()["best_test_error"] == whole.summary()["best_test_error"]
    assert same(cut, whole)


def simulate(run: Path, *words: str) -> RunFolder:
    words = ("epochs=3", "algorithm=asgd", "record.progress=off", "workers=3", *words)
    assert main(["simulate", "jobs/digits.yaml", "--run-dir", str(run), *words]) == 0
    return RunFolder(run)


def test_a_simulated_run_has_them_too(tmp_path: Path, every_checkpoint: None) -> None:
    run = simulate(tmp_path / "run", "checkpoint.every=1")
    assert contents(run)["version"] == 90 * run.summary()["best_epoch"]
    [newest, *_] = checkpoints_in(run.checkpoints)
    saved = torch.load(newest, weights_only=True)["best"]
    assert (saved["value"], saved["version"]) == (
        run.summary()["best_test_error"],
        contents(run)["version"],
    )


def test_a_run_that_did_not_keep_them_before_keeps_only_better_ones(
    tmp_path: Path, every_checkpoint: None
) -> None:
    words = ["schedule={name: step, milestones: [1], factor: 100}"]
    run = simulate(
        tmp_path / "run", *words, "checkpoint={every: 1, every_s: null, keep: 9, best: false}"
    )
    torch.save({}, run.best_pt)
    [*_, second, _] = checkpoints_in(run.checkpoints)
    again = simulate(run.path, *words, "--resume", str(second), "--overwrite")
    assert again.summary()["best_epoch"] == 1
    assert not again.best_pt.exists()


OWN = """
from torch import Generator, nn, rand, randn
from torch.nn.functional import mse_loss

from mpi_dcasgd import Task


class Falling(Task):
    primary_metric = "score"
    higher_is_better = True

    def model(self):
        return nn.Linear(2, 1)

    def train_data(self):
        rng = Generator().manual_seed(1)
        x = randn(40, 2, generator=rng)
        return x, 3 * x.sum(1, keepdim=True)

    test_data = validation_data = train_data

    def loss(self, model, batch):
        x, y = batch
        return mse_loss(model(x), y)

    def metrics(self, model, batch):
        # The norm of the weights, which grows on the way to the optimum.
        return {"score": (-model.weight.square().sum(), 1.0)}
"""


def test_the_validation_split_of_a_task_chooses_in_its_direction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The score falls from epoch to epoch, so the first evaluation is the best."""
    (tmp_path / "falling.py").write_text(OWN)
    (tmp_path / "job.yaml").write_text(
        "task: {name: 'falling:Falling'}\nalgorithm: asgd\nepochs: 3\nbatch_size: 8\nlr: 0.01\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["simulate", "job.yaml", "workers=2", "--run-dir", "run"]) == 0
    run = RunFolder("run")
    summary = run.summary()
    assert summary["best_epoch"] == 1
    assert summary["best_validation_score"] == summary["best_test_score"] > summary["test_score"]
    norm = run.weights(best=True)["weight"].square().sum().item()
    assert -norm == pytest.approx(summary["best_validation_score"])
    events = [event for event in run.metrics() if event["event"] == "evaluation"]
    assert all("validation_loss" in event and "test_loss" in event for event in events)
    assert summary["units"] == {}
