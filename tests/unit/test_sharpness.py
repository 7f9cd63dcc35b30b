"""``mpi-dcasgd sharpness``: the curvature it finds, and what it allows."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.func import functional_call

from mpi_dcasgd import Run, simulate
from mpi_dcasgd.cli import main
from mpi_dcasgd.drivers.world import pick_device
from mpi_dcasgd.errors import ConfigError, RunFolderError
from mpi_dcasgd.learning.learner import Learner
from mpi_dcasgd.runs.build import Workshop
from mpi_dcasgd.runs.jobs import load_job
from mpi_dcasgd.runs.process import process_as_it_was
from mpi_dcasgd.runs.sharpness import sharpness
from mpi_dcasgd.tools.sharpness import largest_eigenvalue

JOB: dict[str, Any] = {
    "algorithm": "asgd",
    "epochs": 1,
    "batch_size": 16,
    "lr": 0.1,
    "model": {"name": "mlp", "hidden": [5]},
    "data": {"name": "synthetic", "num_train": 72, "num_test": 8, "shape": [4], "num_classes": 3},
}
FACTORS = [{"match": "1.weight", "lr": 9.0}, {"match": "*.bias", "lr": 0.25}]


def full_hessian(job: dict[str, Any], weights: dict[str, torch.Tensor] | None) -> torch.Tensor:
    """Every second derivative of the mean loss over the whole training data, in float64."""
    checked = load_job(job)
    with process_as_it_was():
        workshop = Workshop.open(checked, pick_device("cpu", 0))
        flat = workshop.flat_model(workshop.device)
        learner = Learner(flat, workshop.subject, workshop.plan)
        inputs, labels = zip(
            *(learner.load(n).nest for n in range(workshop.plan.tickets_per_epoch)), strict=True
        )
    x, y = torch.cat(inputs).double(), torch.cat(labels)
    model = flat.model.double()
    if weights is not None:
        model.load_state_dict(weights)
    named = {name: value.detach() for name, value in model.named_parameters()}
    shapes = [(name, value.shape, value.numel()) for name, value in named.items()]

    def loss(vector: torch.Tensor) -> torch.Tensor:
        parts = vector.split([size for _, _, size in shapes])
        given = {
            name: part.view(shape) for (name, shape, _), part in zip(shapes, parts, strict=True)
        }
        return torch.nn.functional.cross_entropy(functional_call(model, given, (x,)), y)

    start = torch.cat([value.reshape(-1) for value in named.values()])
    found = torch.autograd.functional.hessian(loss, start)
    assert isinstance(found, torch.Tensor)
    return found


def roots(job: dict[str, Any]) -> torch.Tensor:
    """The root of every parameter's factor of the learning rate, by FACTORS."""
    model = load_job(job).make_task()
    model.seed = 0
    named = dict(model.model().named_parameters())
    factor = {name: 0.25 if name.endswith("bias") else 1.0 for name in named}
    factor["1.weight"] = 9.0
    each = [torch.full((value.numel(),), factor[name]) for name, value in named.items()]
    return torch.cat(each).double().sqrt()


@pytest.mark.parametrize("groups", [[], FACTORS])
def test_the_curvature_is_that_of_a_full_eigendecomposition(groups: list[Any]) -> None:
    found = sharpness({**JOB, "groups": groups}, workers=[1, 4])
    hessian = full_hessian(JOB, None)
    if groups:
        scale = roots(JOB)
        hessian = scale[:, None] * hessian * scale
    values = torch.linalg.eigvalsh(hessian)
    assert found.found.value == pytest.approx(float(values[-1]), rel=1e-3)
    nearest = float((values - found.found.value).abs().min())
    assert nearest <= found.found.error + 1e-5 * abs(found.found.value)
    assert found.found.error <= 1e-3 * found.found.value
    assert (found.samples, found.of) == (72, 72)
    for row, delay in zip(found.allowed, (0, 3), strict=True):
        giladi = 2 * math.sin(math.pi / (2 * (2 * delay + 1))) / found.found.value
        assert (row.staleness, row.used_lr) == (delay, 0.1)
        assert row.stable_lr == pytest.approx(giladi, rel=1e-4)
        assert row.share == pytest.approx(0.1 / giladi, rel=1e-4)


def test_the_largest_is_the_most_positive_and_restarts_help() -> None:
    generator = torch.Generator().manual_seed(3)
    diagonal = torch.cat([torch.linspace(-9.0, 0.97, 200), torch.tensor([1.0])])
    start = torch.randn(201, generator=generator)
    found = largest_eigenvalue(lambda v: diagonal * v, start, 1e-3)
    assert found.products > 41  # more than one Krylov space
    assert found.value == pytest.approx(1.0, rel=0.02)
    assert found.error <= 1e-3 * found.value
    negative = largest_eigenvalue(lambda v: -v * diagonal.abs().add(1), start, 1e-3)
    assert negative.value == pytest.approx(-1.0, rel=0.02)
    assert largest_eigenvalue(torch.zeros_like, start).value == 0.0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return simulate(JOB, workers=3, epochs=3, run_dir=tmp_path_factory.mktemp("sharp") / "run")


def test_a_run_is_measured_at_its_weights_and_its_delays(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sharpness", str(run.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = torch.linalg.eigvalsh(full_hessian(JOB, run.weights()))[-1]
    assert found["curvature"] == pytest.approx(float(expected), rel=1e-3)
    mean = math.ceil(run.summary["staleness_mean"])
    assert [row["staleness"] for row in found["allowed"]] == [0, mean, run.summary["staleness_max"]]
    assert main(["sharpness", str(run.path), "--workers", "1", "40"]) == 0
    text = capsys.readouterr().out
    assert f"final weights of {run.path}" in text
    one, forty = (line.split() for line in text.splitlines() if " worker" in line[:20])
    assert (one[2], forty[2], forty[3][0]) == ("0", "39", "~")
    exact = 2 * math.sin(math.pi / 158) / found["curvature"]
    assert float(forty[3][1:]) == pytest.approx(exact, rel=2e-3)


def test_synchronous_rates_are_those_of_the_group_and_other_rules_go_by_the_formula() -> None:
    grouped = {**JOB, "algorithm": "ssgd", "sync": {"lr_scaling": "linear"}}
    rows = sharpness(grouped, workers=[1, 4], samples=16).allowed
    assert [(row.staleness, row.used_lr) for row in rows] == [(0, 0.1), (0, 0.4)]
    found = sharpness({**JOB, "algorithm": "gap-aware"}, workers=[2], samples=16)
    assert found.samples == 16
    assert "formula for plain SGD" in found.notes[0]
    assert found.allowed[0].stable_lr == pytest.approx(1 / found.found.value)


class Once(torch.autograd.Function):
    """The identity, whose backward pass has no derivative."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad


def test_a_loss_without_second_derivatives_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = Learner.try_loss

    def through_once(self: Learner, batch: Any) -> torch.Tensor:
        self.flat.model.register_forward_hook(lambda *given: Once.apply(given[-1]))
        return genuine(self, batch)

    monkeypatch.setattr(Learner, "try_loss", through_once)
    with pytest.raises(ConfigError, match="twice a function that was marked"):
        sharpness(JOB, workers=[1], samples=16)


def test_what_is_refused(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["sharpness", str(run.path), "lr=1"]) == 2
    assert "changes are for a job" in capsys.readouterr().err
    assert main(["sharpness", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    with pytest.raises(ConfigError, match="only a run has best weights"):
        sharpness(JOB, best=True)
    broken = {name: value * math.nan for name, value in run.weights().items()}
    monkeypatch.setattr("mpi_dcasgd.record.run_folder.RunFolder.weights", lambda *_, **__: broken)
    with pytest.raises(ConfigError, match="not finite at these weights"):
        sharpness(run)
    other = {"other.weight": torch.zeros(1)}
    monkeypatch.setattr("mpi_dcasgd.record.run_folder.RunFolder.weights", lambda *_, **__: other)
    with pytest.raises(RunFolderError, match="do not fit the job's model"):
        sharpness(run)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"samples": -3}, "samples: got -3 (a whole number); allowed: a whole number >= 1"),
        ({"tolerance": 0.0}, "tolerance: got 0.0 (a number); allowed: a number > 0"),
    ],
)
def test_numbers_without_a_meaning_are_refused(given: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        sharpness(JOB, **given)
