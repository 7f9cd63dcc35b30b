"""Runs that begin with weights of a file: which they take, and that they know them again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mpi_dcasgd.config.load import make_job
from mpi_dcasgd.errors import ConfigError, DataError
from mpi_dcasgd.learning.settings import StartSettings
from mpi_dcasgd.record.sealed import save_sealed
from mpi_dcasgd.runs.dry_run import describe_needs
from mpi_dcasgd.runs.result import Run
from mpi_dcasgd.runs.simulate import simulate
from mpi_dcasgd.runs.start_weights import StartWeights
from mpi_dcasgd.runs.train import train

JOB: dict[str, Any] = {
    "name": "small",
    "algorithm": "asgd",
    "epochs": 2,
    "batch_size": 8,
    "lr": 0.1,
    "data": {"name": "synthetic", "num_train": 32, "num_test": 8, "shape": [4], "num_classes": 3},
    "model": {"name": "mlp", "hidden": [5]},
    "record": {"progress": "off"},
}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose weights others begin with."""
    return train(JOB, algorithm="sgd", run_dir=tmp_path_factory.mktemp("first") / "run")


def model(hidden: int = 5) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, 3))


def read(file: Path, *fresh: str) -> StartWeights:
    found = StartWeights.of(StartSettings(weights=str(file), fresh=fresh))
    assert found is not None
    return found


def test_a_run_begins_with_the_weights_of_another(first: Run, tmp_path: Path) -> None:
    # No step at all: what comes out is what it began with.
    run = simulate(
        JOB, workers=3, lr=1e-30, run_dir=tmp_path / "run", **{"start.weights": str(first.path)}
    )
    assert run.summary["weights_sha256"] == first.summary["weights_sha256"]
    assert (
        f"first weights: {first.path}/weights.pt, sha256"
        in (run.path / "logs/rank-0.log").read_text()
    )


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_file_of_torch_save_serves_as_well(tmp_path: Path, wrapped: bool) -> None:
    state = model().state_dict()
    torch.save({"state_dict": state} if wrapped else state, tmp_path / "w.pt")
    other = model()
    read(tmp_path / "w.pt").put_into(other)
    assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())


def test_fresh_weights_are_the_models_own(tmp_path: Path) -> None:
    state = model().state_dict()
    torch.save(
        {**state, "3.weight": torch.zeros(7, 5), "3.bias": torch.zeros(7)}, tmp_path / "w.pt"
    )
    other = model()
    head = other[3].weight.clone()
    read(tmp_path / "w.pt", "3.*").put_into(other)
    assert torch.equal(other[3].weight, head)
    assert torch.equal(other[1].weight, state["1.weight"])


@pytest.mark.parametrize(
    ("state", "fresh", "told"),
    [
        (model(6).state_dict(), (), "1.weight is 6x4 there and 5x4 in the model"),
        ({"head": torch.ones(2)}, (), "has no 1.weight, 1.bias, 3.weight, 3.bias"),
        ({**model().state_dict(), "x": torch.ones(1)}, (), "has x, which the model has not"),
        (model().state_dict(), ("fc.*",), "'fc.*' matches nothing of the model"),
        (model().state_dict(), ("*",), "matches everything"),
    ],
)
def test_other_weights_are_refused(
    tmp_path: Path, state: dict[str, Any], fresh: tuple[str, ...], told: str
) -> None:
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"start\.weights: .*w\.pt") as caught:
        read(tmp_path / "w.pt", *fresh).put_into(model())
    assert told in str(caught.value)


def test_what_is_no_file_of_weights_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not there; name a run"):
        read(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("no")
    with pytest.raises(DataError, match=r"is no file that torch\.save wrote"):
        read(tmp_path / "text.pt")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(DataError, match="holds no state_dict"):
        read(tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    with pytest.raises(DataError, match="holds no state_dict"):
        read(tmp_path / "other.pt")


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    with file.open("w+b") as writing:
        save_sealed({"state_dict": model().state_dict()}, writing)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="is damaged: its bytes do not match"):
        read(file)


def test_fresh_without_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"start\.fresh: .*start\.weights is null"):
        make_job(JOB, Path("job.yaml"), ["start.fresh=[a]"])


def test_a_resume_knows_the_weights_again(first: Run, tmp_path: Path) -> None:
    start = tmp_path / "start"
    shutil.copytree(first.path, start)
    job = {**JOB, "start": {"weights": str(start)}, "checkpoint": {"every": 1}}
    run = simulate(job, workers=2, run_dir=tmp_path / "run")
    (run.path / "summary.json").unlink()  # as if it had been killed
    torch.save(model().state_dict(), start / "weights.pt")
    with pytest.raises(DataError, match=r"start\.weights: .*holds other weights"):
        simulate(job, workers=2, run_dir=tmp_path / "run")


def test_a_dry_run_tells_of_weights_that_are_not_there(tmp_path: Path) -> None:
    job = make_job(JOB, Path("job.yaml"), [f"start.weights={tmp_path / 'nowhere'}"])
    with pytest.raises(DataError, match=r"start\.weights: .*nowhere: is not there"):
        describe_needs(job, 2)
