"""Settings that a run's own model leaves without effect are told at its start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mpi_dcasgd.config.check import try_job
from mpi_dcasgd.config.load import job_as_yaml, make_job
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.runs.idle_settings import idle_beside
from mpi_dcasgd.runs.train import train

BASE: dict[str, Any] = {"algorithm": "sgd", "epochs": 1, "batch_size": 500, "lr": 0.1}
BASE |= {"model": {"name": "mlp", "hidden": [4]}, "data": {"name": "digits"}}
CHANNELS_LAST = {"compute": {"channels_last": True}}
GROUPS = [{"match": "biases", "weight_decay": 0}, {"match": "rest", "lr": 2.0}]


def never() -> nn.Module:
    raise AssertionError("no setting needs the model")


@pytest.mark.parametrize(
    ("settings", "model", "keys"),
    [
        ({"batchnorm": "latest"}, nn.Linear(2, 2), ["batchnorm"]),
        ({"batchnorm": "latest"}, nn.BatchNorm1d(2), []),
        ({"batchnorm": "latest"}, nn.BatchNorm1d(2, track_running_stats=False), ["batchnorm"]),
        (CHANNELS_LAST, nn.Linear(2, 2), ["compute.channels_last"]),
        (CHANNELS_LAST, nn.Conv1d(1, 1, 2), ["compute.channels_last"]),
        (CHANNELS_LAST, nn.Conv2d(1, 1, 2), []),
    ],
)
def test_what_the_model_has_not_is_told(
    settings: dict[str, Any], model: nn.Module, keys: list[str]
) -> None:
    job, _ = try_job({**BASE, **settings}, name="x")
    assert job is not None
    assert [line.partition(":")[0] for line in idle_beside(job, lambda: model)] == keys


def test_without_such_a_setting_no_model_is_made() -> None:
    job, _ = try_job(BASE, name="x")
    assert job is not None
    assert idle_beside(job, never) == []


def test_a_run_tells_it_at_its_start(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    run = train({**BASE, **CHANNELS_LAST, "batchnorm": "latest"}, run_dir=tmp_path / "run")
    torch.set_num_threads(threads)
    told = (run.path / "logs" / "rank-0.log").read_text()
    assert "batchnorm: latest has no effect: the model has no running statistics" in told
    assert "compute.channels_last: true has no effect: the model has no convolution" in told


def test_factors_of_a_weight_decay_that_there_is_not_are_refused() -> None:
    job, rate = {**BASE, "groups": GROUPS}, {"weight_decay": {"rate": 0.1}}
    with pytest.raises(ConfigError) as raised:
        make_job(job, Path("x.yaml"))
    (problem,) = raised.value.problems
    assert problem.startswith("groups[0].weight_decay: got 0, which has no effect: nothing decays")
    assert make_job({**job, "rule": rate}, Path("x.yaml")).groups
    assert make_job({**job, "rule": rate}, Path("x.yaml"), ["rule.weight_decay.rate=0"]).groups
    with pytest.raises(ConfigError, match=r"groups\[0\]"):
        make_job(BASE, Path("x.yaml"), ["groups=[{match: biases, weight_decay: 0}]"])
    plain = job_as_yaml(make_job({**job, "rule": rate}, Path("x.yaml")))
    plain["rule"]["weight_decay"]["rate"] = 0.0
    assert make_job(plain, Path("x.yaml")).groups, "a job that a run has written out has all"
