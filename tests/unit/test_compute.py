"""How a worker computes a gradient: in parts, in bfloat16, with channels last, compiled."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from line_tasks import Line, Tensors
from torch import Tensor, nn
from toy import toy_dataset, toy_model

import mpi_dcasgd
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.flat import FlatModel, StatisticsPolicy
from mpi_dcasgd.learning.learner import Learner
from mpi_dcasgd.learning.settings import ComputeSettings
from mpi_dcasgd.learning.step import loss_of
from mpi_dcasgd.learning.subject import Subject
from mpi_dcasgd.learning.task import Task
from mpi_dcasgd.learning.tasks.classification import classify
from mpi_dcasgd.learning.tickets import TicketPlan

CPU = torch.device("cpu")


def learner_of(task: Task, **settings: Any) -> Learner:
    subject = Subject.open(task, 0, CPU)
    flat = FlatModel(subject.build_model(0), CPU)
    plan = TicketPlan(len(subject.train), 8, seed=0, epochs=2)
    return Learner(flat, subject, plan, ComputeSettings(**settings))


@pytest.mark.parametrize("parts", [2, 3, 8, 50])
def test_a_minibatch_in_parts_has_the_gradient_of_the_whole(parts: int) -> None:
    whole, divided = learner_of(Tensors(35)), learner_of(Tensors(35), accumulate=parts)
    for ticket in (0, 4):  # 8 samples, and an epoch's last 3
        mine, theirs = (one.gradient(one.load(ticket)) for one in (divided, whole))
        assert (mine.ticket, mine.samples) == (theirs.ticket, theirs.samples)
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert torch.allclose(divided.flat.grad, whole.flat.grad, rtol=1e-4, atol=1e-6)


def test_parts_are_as_many_as_asked_for_and_replay_bit_for_bit() -> None:
    one, other = (learner_of(Line(dropout=0.5), accumulate=3) for _ in range(2))
    batch = one.load(2)
    assert [samples for samples, _ in batch.nest] == [3, 3, 2]
    one.gradient(one.load(0))
    found = [learner.gradient(learner.load(2)) for learner in (one, other)]
    assert found[0] == found[1]
    assert torch.equal(one.flat.grad, other.flat.grad)


@pytest.mark.parametrize("policy", ["average", "latest"])
def test_statistics_of_parts_are_their_mean_or_the_last_ones(policy: StatisticsPolicy) -> None:
    plan, subject = TicketPlan(50, 8, seed=3, epochs=1), classify(toy_dataset())
    found = []
    for parts in (1, 2):
        flat = FlatModel(toy_model(batchnorm=True), CPU, policy)
        learner = Learner(flat, subject, plan, ComputeSettings(accumulate=parts))
        if parts == 2 and policy == "average":
            means = []
            for samples, nest in learner.load(0).nest:
                assert samples == 4
                means.append(flat.model[0](nest[0]).mean(0))  # type: ignore[index]
        learner.gradient(learner.load(0))
        found.append(flat.grad[flat.layout.num_params :].clone())
    mean = next(field for field in flat.layout.stats if field.name.endswith("running_mean"))
    start = mean.offset - flat.layout.num_params
    if policy == "average":
        both = torch.stack(means).mean(0)
        assert torch.allclose(found[1][start : start + mean.size], both, atol=1e-6)
    else:
        # Momentum 0.2 twice, from zero: not what one step with the whole minibatch makes.
        assert not torch.allclose(found[0], found[1])
        assert torch.equal(found[1], flat.weights[flat.layout.num_params :])


def test_bfloat16_is_of_the_forward_pass_alone() -> None:
    seen: list[torch.dtype] = []

    class Told(Tensors):
        def loss(self, model: nn.Module, batch: Any) -> Tensor:
            outputs = model(batch["x"])
            seen.append(outputs.dtype)
            return (outputs - batch["y"]).square().mean()

    rounded, plain = learner_of(Told(), precision="bfloat16"), learner_of(Told())
    mine, theirs = (one.gradient(one.load(0)) for one in (rounded, plain))
    assert seen == [torch.bfloat16, torch.float32]
    assert rounded.flat.grad.dtype == torch.float32
    assert mine.loss != theirs.loss
    assert mine.loss == pytest.approx(theirs.loss, rel=0.02)
    assert torch.allclose(rounded.flat.grad, plain.flat.grad, rtol=0.05, atol=0.05)


def test_channels_last_turns_images_and_nothing_else() -> None:
    given: list[Any] = []
    turned = loss_of(
        lambda model, batch: given.append(batch) or torch.zeros(()),  # type: ignore[func-returns-value]
        ComputeSettings(channels_last=True),
        CPU,
    )
    images, numbers = torch.rand(2, 3, 4, 5), torch.arange(120).view(2, 3, 4, 5)
    turned(nn.Identity(), (images, {"rows": torch.rand(2, 3), "numbers": numbers}))
    found, rest = given[0]
    assert torch.equal(found, images)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert not found.is_contiguous()
    assert rest["numbers"] is numbers


def test_by_default_the_loss_is_the_tasks_own() -> None:
    task = Tensors()
    assert loss_of(task.loss, ComputeSettings(), CPU) == task.loss


def test_a_compiled_loss_is_near_and_every_size_is_compiled_for_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, Any]] = []

    def compiled(function: Any, **options: Any) -> Any:
        asked.append(options)
        return function

    monkeypatch.setattr(torch, "compile", compiled)
    learner = learner_of(Tensors(35), compile=True)
    assert asked == [{"dynamic": False}]
    plain = learner_of(Tensors(35))
    assert learner.gradient(learner.load(0)) == plain.gradient(plain.load(0))


def test_minibatches_of_too_many_shapes_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    loss = loss_of(lambda model, batch: batch.sum(), ComputeSettings(compile=True), CPU)
    for size in range(1, 9):
        loss(nn.Identity(), torch.zeros(size))
        loss(nn.Identity(), torch.zeros(size))
    with pytest.raises(ConfigError, match="compile: minibatches of more than 8 different shapes"):
        loss(nn.Identity(), torch.zeros(9))


@pytest.mark.parametrize(
    "compute", [{"precision": "bfloat16"}, {"accumulate": 3}, {"channels_last": True}]
)
def test_a_job_computes_as_it_says_and_repeats_itself(
    compute: dict[str, Any], tmp_path: Any
) -> None:
    changes = {f"compute.{key}": value for key, value in compute.items()}
    runs = [
        mpi_dcasgd.simulate(
            "jobs/digits.yaml", workers=2, epochs=1, run_dir=tmp_path / f"run{n}", **changes
        )
        for n in range(2)
    ]
    assert runs[0].summary["weights_sha256"] == runs[1].summary["weights_sha256"]
    assert runs[0].summary["test_error"] < 0.5
    job = mpi_dcasgd.load_job(runs[0].path / "job.yaml")
    assert {key: getattr(job.compute, key) for key in compute} == compute


@pytest.mark.slow
def test_torch_compile_trains_for_real(tmp_path: Any) -> None:
    # Three minibatches of one size, so that one graph is compiled.
    small = {"model.hidden": [], "batch_size": 479, "lr": 1.0}
    settings = {"workers": 2, "epochs": 2, "compute.compile": True, **small}
    run = mpi_dcasgd.simulate("jobs/digits.yaml", run_dir=tmp_path / "run", **settings)
    assert run.summary["test_error"] < 0.5
