"""Parameter groups through every driver: MPI, allreduce, one process, the simulator, replay."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mpi_dcasgd
from mpi_dcasgd.runs.replay import replay

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(180)]

JOB = "jobs/digits.yaml"
GROUPS = "groups=[{match: biases, lr: 0.5}, {match: 1.weight, lr: 2.0, weight_decay: 0.5}]"
WORDS = ["epochs=3", "rule.weight_decay={rate: 0.001, on: conv-and-linear}", GROUPS]
LR = {"dana": 0.01, "rennala": 0.2, "dcasgd-a": 0.05, "asgd": 0.05}


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


@pytest.mark.parametrize("algorithm", LR)
def test_a_run_in_groups_learns_and_is_replayed_identically(
    shared_world: Callable[..., Any], tmp_path: Path, algorithm: str
) -> None:
    words = [f"algorithm={algorithm}", f"lr={LR[algorithm]}", *WORDS]
    shared_world("world_calls:train", JOB, [(str(tmp_path / "run"), words)])
    found = replay(tmp_path / "run")
    assert found.identical, str(found)
    assert summary(tmp_path / "run")["test_error"] < 0.15


def test_frozen_layers_are_those_of_the_seed_on_every_driver(
    shared_world: Callable[..., Any], tmp_path: Path
) -> None:
    words = ["algorithm=dcasgd-c", "epochs=2", "groups=[{match: 1.*, frozen: true}]"]
    shared_world("world_calls:train", JOB, [(str(tmp_path / "mpi"), words)], ranks=3)
    mpi_dcasgd.train(JOB, run_dir=tmp_path / "one", words=["algorithm=sgd", *words[1:]])
    states = [
        torch.load(tmp_path / name / "weights.pt", weights_only=True)["state_dict"]
        for name in ("mpi", "one")
    ]
    names = ["1.weight", "1.bias", "3.weight", "3.bias"]
    assert [list(state) for state in states] == [names, names]
    same = [torch.equal(states[0][name], states[1][name]) for name in names]
    assert same == [True, True, False, False]
    found = replay(tmp_path / "mpi")
    assert found.identical, str(found)


@pytest.mark.parametrize("momentum", ["none", "heavy-ball"])
def test_one_worker_and_the_simulator_equal_one_process(
    shared_world: Callable[..., Any], tmp_path: Path, momentum: str
) -> None:
    words = [*WORDS, f"rule.momentum={momentum}"]
    runs = [(str(tmp_path / "mpi"), ["algorithm=asgd", *words])]
    shared_world("world_calls:train", JOB, runs, ranks=2)
    mpi_dcasgd.train(JOB, run_dir=tmp_path / "one", words=["algorithm=sgd", *words])
    simulated = [*words, "algorithm=asgd", "workers=1"]
    mpi_dcasgd.simulate(JOB, run_dir=tmp_path / "simulated", words=simulated)
    names = {summary(tmp_path / run)["weights_sha256"] for run in ("mpi", "one", "simulated")}
    assert len(names) == 1


@pytest.mark.horovod
def test_an_allreduce_in_groups_equals_one_process_with_the_whole_batch(
    shared_world: Callable[..., Any], tmp_path: Path
) -> None:
    words = [*WORDS, "sync.lr_scaling=none"]
    runs = [(str(tmp_path / "sync"), ["algorithm=ssgd", "batch_size=16", *words])]
    shared_world("world_calls:train", JOB, runs, ranks=2)
    mpi_dcasgd.train(
        JOB, run_dir=tmp_path / "one", words=["algorithm=sgd", "batch_size=32", *words]
    )
    for name, mine in load(tmp_path / "sync").items():
        torch.testing.assert_close(mine, load(tmp_path / "one")[name], rtol=1e-4, atol=1e-5)


def load(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(folder / "weights.pt", weights_only=True)[
        "state_dict"
    ]
    return found


def test_ranks_whose_frozen_parameters_differ_do_not_train(
    shared_world: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "odd_models.py").write_text(
        "import torch\n"
        "from mpi4py import MPI\n"
        "def net(*, input_shape, num_classes):\n"
        "    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, num_classes))\n"
        "    with torch.no_grad():\n"
        "        model[1].bias.fill_(float(MPI.COMM_WORLD.rank == 1))\n"
        "    return model\n"
    )
    words = ["algorithm=asgd", "epochs=1", "model={name: 'odd_models:net'}"]
    words.append("groups=[{match: biases, frozen: true}]")
    answers = shared_world(
        "world_calls:refused", JOB, tmp_path / "run", words, ranks=3, path=[tmp_path]
    )
    for answer in answers:
        assert "parameters that are not trained differ between rank 0 and rank 1" in answer.value
