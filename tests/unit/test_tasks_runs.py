"""Built-in tasks in whole runs: one worker is the sequential run, and every metric is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mpi_dcasgd

RNG = np.random.default_rng(2)
TEXT = "the quick brown fox jumps over the lazy dog, and back again; "


def arrays(folder: Path) -> str:
    x = RNG.standard_normal((60, 4)).astype(np.float32)
    y = (x @ np.array([1, -2, 0.5, 0])).astype(np.float32)
    file = folder / "numbers.npz"
    np.savez(file, x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    return str(file)


def text(folder: Path) -> str:
    file = folder / "mine.txt"
    file.write_text(TEXT * 10)
    return str(file)


def job(name: str, folder: Path) -> dict[str, Any]:
    settings: dict[str, dict[str, Any]] = {
        "quadratic": {"task": {"dimension": 30, "samples": 40}, "lr": 0.5},
        "least-squares": {"task": {"samples": 40, "dimension": 4}, "lr": 1.0},
        "logistic": {"task": {"samples": 40, "dimension": 4}, "lr": 1.0},
        "regression": {
            "model": {"name": "mlp", "hidden": [8], "dropout": 0.1},
            "data": {"name": "arrays", "path": arrays(folder)},
            "lr": 0.1,
        },
        "language-model": {
            "model": {"name": "transformer", "width": 8, "depth": 1, "heads": 2, "dropout": 0.1},
            "data": {"name": "text", "path": text(folder), "window": 8, "validation": 0.1},
            "lr": 0.5,
        },
    }
    found = settings[name]
    task = {"name": name, **found.pop("task", {})}
    return {"algorithm": "sgd", "epochs": 2, "batch_size": 8, "task": task, **found}


METRICS = {
    "quadratic": {"f_gap", "grad_sq", "loss"},
    "least-squares": {"f_gap", "grad_sq", "loss"},
    "logistic": {"f_gap", "grad_sq", "loss"},
    "regression": {"mse", "rmse", "mae", "loss"},
    "language-model": {"loss", "perplexity", "bits_per_byte"},
}


@pytest.mark.parametrize("name", METRICS)
def test_one_worker_is_the_sequential_run_and_all_metrics_are_recorded(
    name: str, tmp_path: Path
) -> None:
    given = job(name, tmp_path)
    run = mpi_dcasgd.train(given, run_dir=tmp_path / "sequential")
    alone = mpi_dcasgd.simulate(given, workers=1, run_dir=tmp_path / "one", algorithm="asgd")
    for tensor, other in zip(run.weights().values(), alone.weights().values(), strict=True):
        assert torch.equal(tensor, other)
    recorded = {key.removeprefix("test_") for key in run.summary if key.startswith("test_")}
    assert recorded == METRICS[name]
    primary = run.summary["primary_metric"]
    assert primary == {"regression": "mse", "language-model": "loss"}.get(name, "f_gap")
    evaluations = [event for event in run.metrics() if event["event"] == "evaluation"]
    assert evaluations[-1][f"test_{primary}"] < evaluations[0][f"test_{primary}"]


@pytest.mark.parametrize("name", ["quadratic", "language-model"])
def test_what_a_task_draws_does_not_depend_on_who_draws_it(name: str, tmp_path: Path) -> None:
    given = job(name, tmp_path)
    weights = [
        mpi_dcasgd.simulate(
            given, workers=3, run_dir=tmp_path / folder, algorithm="dcasgd-a", delays="gamma"
        ).weights()
        for folder in ("one", "other")
    ]
    for tensor, other in zip(weights[0].values(), weights[1].values(), strict=True):
        assert torch.equal(tensor, other)


def test_regression_of_classes_is_refused_before_anything_starts(tmp_path: Path) -> None:
    wrong = job("regression", tmp_path) | {"data": {"name": "digits"}}
    with pytest.raises(mpi_dcasgd.ConfigError, match="regression needs targets that are floats"):
        mpi_dcasgd.train(wrong, run_dir=tmp_path / "run")
