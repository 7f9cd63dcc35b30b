"""A task of a user's own keeps what a built-in one keeps, on every driver."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from replayed_task import Tied

import mpi_dcasgd
from mpi_dcasgd.learning.layout import FlatLayout
from mpi_dcasgd.runs.replay import replay

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(180)]

JOB = """\
epochs: 8
batch_size: 4
evaluate_every: 4
seed: 3
task: {name: "replayed_task:NextLetter"}
rule: {weight_decay: {rate: 1.0e-3}}
groups: [{match: biases-and-norms, weight_decay: 0, lr: 0.5}]
"""
LR = {"asgd": 0.2, "dcasgd-a": 0.2, "dana": 0.03, "rennala": 0.5}
LOADERS = [0, pytest.param(2, marks=pytest.mark.slow)]


@pytest.fixture
def job(tmp_path: Path) -> str:
    file = tmp_path / "own.yaml"
    file.write_text(JOB)
    return str(file)


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def words_for(algorithm: str, loaders: int) -> list[str]:
    return [f"algorithm={algorithm}", f"lr={LR[algorithm]}", f"data.loaders={loaders}"]


@pytest.mark.parametrize("loaders", LOADERS)
@pytest.mark.parametrize("algorithm", LR)
def test_a_run_over_mpi_learns_and_is_replayed_identically(
    shared_world: Callable[..., Any], tmp_path: Path, job: str, algorithm: str, loaders: int
) -> None:
    run = tmp_path / "run"
    shared_world("world_calls:train", job, [(str(run), words_for(algorithm, loaders))], ranks=3)
    assert summary(run)["status"] == "completed"
    assert summary(run)["test_right"] > 0.5, "by chance 1 in 12"
    found = replay(run)
    assert found.identical, str(found)
    assert found.weights_sha256 == summary(run)["weights_sha256"]


@pytest.mark.parametrize("algorithm", LR)
def test_a_simulated_run_repeats_itself_whoever_loads_the_samples(
    tmp_path: Path, job: str, algorithm: str
) -> None:
    names = set()
    for loaders in (0, 0, 1):
        # Minibatches ahead change which weights a gradient is of, and loaders bring some.
        words = ["workers=5", "delays=gamma", "ahead=2", *words_for(algorithm, loaders)]
        path = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        found = mpi_dcasgd.simulate(job, run_dir=path, words=words).summary
        assert found["test_right"] > 0.3, "by chance 1 in 12"
        names.add(found["weights_sha256"])
    assert len(names) == 1


def test_whoever_loads_the_samples_the_order_of_pushes_gives_the_weights(
    shared_world: Callable[..., Any], tmp_path: Path, job: str
) -> None:
    run = tmp_path / "run"
    words = ["ahead=2", *words_for("dcasgd-a", 0)]
    shared_world("world_calls:train", job, [(str(run), words)], ranks=3)
    other = replay(run, tmp_path / "loaded", words=["data.loaders=1"])
    assert summary(other.path)["weights_sha256"] == summary(run)["weights_sha256"]


def test_tied_weights_are_sent_and_kept_once(tmp_path: Path, job: str) -> None:
    words = ["workers=2", "epochs=1", "lr=0.1"]
    run = mpi_dcasgd.simulate(job, run_dir=tmp_path / "run", words=words)
    weights = run.weights()
    assert torch.equal(weights["output.weight"], weights["embedding.weight"])
    assert not torch.equal(weights["output.weight"], Tied().output.weight)
    names = [field.name for field in FlatLayout.of(Tied()).params]
    assert "embedding.weight" in names
    assert "output.weight" not in names
