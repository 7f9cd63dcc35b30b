"""What a first gradient and a first evaluation show is told before training begins."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from line_tasks import Line, Points, Tensors
from torch import Tensor, nn

from mpi_dcasgd.errors import ConfigError, DataError
from mpi_dcasgd.learning.flat import FlatModel
from mpi_dcasgd.learning.learner import Learner
from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.learning.settings import ComputeSettings
from mpi_dcasgd.learning.subject import Subject, build
from mpi_dcasgd.learning.task import Task
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.learning.trial import try_metrics, try_out

CPU = torch.device("cpu")


def learner_of(task: Task, batch_size: int = 8, accumulate: int = 1) -> Learner:
    subject = Subject.open(task, 0, CPU)
    flat = FlatModel(subject.build_model(0), CPU)
    plan = TicketPlan(len(subject.train), batch_size, seed=0, epochs=1)
    return Learner(flat, subject, plan, ComputeSettings(accumulate=accumulate))


def with_loss(loss: Callable[[nn.Module, Any], Any]) -> Task:
    """Make the line with another loss."""

    class Changed(Tensors):
        def loss(self, model: nn.Module, batch: Any) -> Any:
            return loss(model, batch)

    return Changed()


def squares(model: nn.Module, batch: Any) -> Tensor:
    found: Tensor = (model(batch["x"]) - batch["y"]).square()
    return found


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (squares, r"returned a tensor of shape \(8, 1\) and float32; allowed: a scalar tensor"),
        (lambda model, batch: squares(model, batch).mean().item(), "returned float; allowed"),
        (lambda model, batch: None, "returned NoneType; allowed"),
        (lambda model, batch: squares(model, batch).mean().long(), "a tensor of shape .* int64"),
        (lambda model, batch: squares(model, batch).mean().log() * torch.inf, "is -?inf for"),
        (lambda model, batch: squares(model, batch).mean() * torch.nan, "is nan for the first"),
        (
            lambda model, batch: squares(model, batch).mean().detach(),
            "does not depend on the parameters",
        ),
        (
            lambda model, batch: torch.ones((), requires_grad=True) * 2,
            "does not depend on the parameters",
        ),
        (lambda model, batch: 1 / 0, r"raised ZeroDivisionError: .* \(.*test_trial.py, line"),
        (lambda model, batch: batch["z"], r"raised KeyError: 'z' \(.*test_trial.py, line"),
    ],
)
def test_what_is_no_loss_is_refused(loss: Callable[..., Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as refused:
        try_out(learner_of(with_loss(loss)))
    assert refused.value.where == "Changed.loss"


class WithModel(Tensors):
    """The line with another model."""

    def __init__(self, made: Any) -> None:
        super().__init__()
        self.made = made

    def model(self) -> Any:
        return self.made()


class Unused(nn.Linear):
    def __init__(self) -> None:
        super().__init__(1, 1)
        self.spare = nn.Linear(2, 3)


class Counting(nn.Linear):
    """A layer that remembers something else than running statistics."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("fixed", torch.full((2,), torch.nan))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
        return super().forward(x)


class Looked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 1, sparse=True)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.table(x.long()[:, 0])
        return found


def test_parameters_that_no_gradient_reaches_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        try_out(learner_of(WithModel(Unused)))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("no gradient reaches spare.weight, spare.bias: they keep")


def test_buffers_that_training_changes_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="training changes the buffers seen, which workers do"):
        try_out(learner_of(WithModel(Counting)))


def test_sparse_gradients_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"the gradients of table.weight are sparse; allowed"):
        try_out(learner_of(WithModel(Looked)))


def test_running_statistics_are_no_such_buffers() -> None:
    layers = [nn.Linear(1, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)]
    learner = learner_of(WithModel(lambda: nn.Sequential(*layers)))
    try_out(learner)
    assert learner.flat.layout.num_stats > 0


class Normalised(Tensors):
    """The line with BatchNorm, and a loss that may take a minibatch apart."""

    pieces = 1

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        pieces = zip(batch["x"].chunk(self.pieces), batch["y"].chunk(self.pieces), strict=True)
        return sum((squares(model, {"x": x, "y": y}).mean() for x, y in pieces), torch.zeros(()))


@pytest.mark.parametrize(
    ("points", "batch_size", "accumulate", "pieces", "told"),
    [
        pytest.param(
            *(33, 8, 1, 1),
            r"batch_size: 33 samples in minibatches of 8 leave one for the last, and of a single "
            r"sample BatchNorm takes no statistics; choose another size \(.*test_trial.py, line",
            id="an-epochs-last-minibatch",
        ),
        pytest.param(
            *(32, 1, 1, 1), r"batch_size: got 1, .*; choose a larger size \(", id="every-minibatch"
        ),
        pytest.param(
            *(32, 8, 5, 1),
            r"compute\.accumulate: 32 samples in minibatches of 8, each in up to 5 parts, leave "
            r"one for a part, and .*; choose fewer parts, or another batch_size \(",
            id="a-part-of-a-minibatch",
        ),
        pytest.param(
            *(32, 8, 1, 8),
            r"raised ValueError: Expected more than 1 value per channel.* \(.*test_trial.py, line "
            r"\d+\); it was given 8 samples \(batch_size: 8\)$",
            id="a-piece-of-the-loss's-own",
        ),
    ],
)
def test_a_single_sample_in_the_batchnorm_of_ones_own_model_is_told_with_its_reason(
    points: int, batch_size: int, accumulate: int, pieces: int, told: str
) -> None:
    task = Normalised(points)
    task.pieces = pieces
    with pytest.raises(ConfigError, match=told) as refused:
        try_out(learner_of(task, batch_size, accumulate))
    assert refused.value.where == "Normalised.loss"


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: None, "returned NoneType; allowed: a torch.nn.Module"),
        (lambda: torch.zeros(3), "returned Tensor; allowed: a torch.nn.Module"),
        (lambda: nn.Linear(2, "x"), r"raised TypeError: .*\(.*test_trial.py, line"),
    ],
)
def test_what_is_no_model_is_refused(made: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as refused:
        learner_of(WithModel(made))
    assert refused.value.where == "WithModel.model"


def test_a_sample_that_cannot_be_had_is_told_at_the_start() -> None:
    class Torn(Line):
        def train_data(self) -> Any:
            return [torch.zeros(1), torch.zeros(2)] * 4

    with pytest.raises(DataError, match="cannot be collated into a batch"):
        try_out(learner_of(Torn()))


def test_a_primary_metric_that_is_not_measured_is_refused() -> None:
    class Lost(Tensors):
        primary_metric = "lost"

    learner = learner_of(Lost())
    told = "primary_metric: got 'lost'; allowed: one of those that metrics.. returns"
    with pytest.raises(ConfigError, match=told):
        try_metrics(learner.flat, learner.subject)


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"higher_is_better": "no"}, "higher_is_better: got 'no' (text); allowed: True or False"),
        (
            {"evaluation_draws": 1},
            "evaluation_draws: got 1 (a whole number); allowed: True or False",
        ),
        (
            {"evaluation_batch": 0},
            "evaluation_batch: got 0 (a whole number); allowed: a whole number >= 1",
        ),
        ({"primary_metric": None}, "primary_metric: got None; allowed: the name of a metric"),
        ({"units": "%"}, "units: got '%' (text); allowed: a dictionary of texts by metric"),
        ({"units": {"inside": 3}}, "units: got {'inside': 3} (a mapping); allowed"),
        ({"primary_metrics": "inside"}, "nothing reads it; did you mean primary_metric"),
        ({"higher_is_beter": True}, "nothing reads it; did you mean higher_is_better"),
    ],
)
def test_attributes_of_another_kind_are_refused(attributes: dict[str, Any], told: str) -> None:
    task = type("Mine", (Tensors,), attributes)()
    with pytest.raises(ConfigError, match=f"^Mine: 1 problem\n  .*{re.escape(told)}"):
        learner_of(task)


def test_attributes_of_another_kind_are_refused_before_anything_is_measured_by_them() -> None:
    with pytest.raises(ConfigError, match=r"units: got '%' \(text\); allowed"):
        Measures.of(type("Mine", (Tensors,), {"units": "%"})())


def test_what_only_looks_like_an_attribute_of_a_task_is_not_refused() -> None:
    class Mine(Tensors):
        unit = "mm"
        metric = 7

        def primary_metric_of(self) -> int:
            return self.metric

    learner_of(Mine())


def test_units_of_metrics_that_are_not_computed_are_refused() -> None:
    learner = learner_of(type("Mine", (Tensors,), {"units": {"insid": "%"}})())
    with pytest.raises(ConfigError, match=r"units.insid: no such metric .*; did you mean inside"):
        try_metrics(learner.flat, learner.subject)


def test_a_model_that_comes_twice_is_refused() -> None:
    shared = nn.Linear(1, 1)
    task = type("Mine", (Tensors,), {"model": lambda self: shared})()
    learner = learner_of(task)
    with pytest.raises(
        ConfigError, match=r"Mine.model.*\n.* a module, .* make all of it anew at every call"
    ):
        learner.subject.build_model(0)


@pytest.mark.parametrize("trained", [True, False])
def test_a_model_around_a_kept_part_is_refused_if_that_is_trained(trained: bool) -> None:
    shared = nn.Linear(1, 1).requires_grad_(trained)
    task = type("Mine", (Tensors,), {"model": lambda self: nn.Sequential(nn.Linear(1, 1), shared)})
    learner = learner_of(task())
    if not trained:  # what is read only may be everybody's
        learner.subject.build_model(0)
        return
    with pytest.raises(ConfigError, match=r"Mine.model.*\n.* returned the module 1, which it has"):
        learner.subject.build_model(0)


def test_a_part_that_was_made_for_its_shapes_alone_is_no_part_of_a_model() -> None:
    with torch.device("meta"):
        shapes = nn.Linear(1, 1).requires_grad_(False)
    task = type("Mine", (Tensors,), {"model": lambda self: nn.Sequential(nn.Linear(1, 1), shapes)})
    with pytest.raises(ConfigError, match="returned the module 1, which it has returned before"):
        learner_of(task())
    with torch.device("meta"):
        build(task(), 0)


@pytest.mark.parametrize(
    ("method", "found", "told"),
    [
        ("metrics", {3: (1.0, 2)}, "metrics: has the name 3, which is no text; allowed: a mapping"),
        ("derived", "text", "derived: returned 'text'; allowed: a mapping of names to numbers"),
        ("derived", {3: 1.0}, "derived: returned {3: 1.0}; allowed: a mapping of names"),
    ],
)
def test_metrics_without_names_are_refused(method: str, found: Any, told: str) -> None:
    learner = learner_of(type("Mine", (Tensors,), {method: lambda *given: found})())
    with pytest.raises(ConfigError, match=told):
        try_metrics(learner.flat, learner.subject)


def test_a_fraction_beside_validation_data_of_ones_own_is_refused() -> None:
    class Mine(Tensors):
        def validation_data(self) -> Any:
            return Points(3, shaken=False)

    assert len(Subject.open(Mine(), 0, CPU).validation or ()) == 3
    with pytest.raises(ConfigError, match=r"data.validation: has no effect, since Mine has"):
        Subject.open(Mine(), 0, CPU, validation=0.2)


def test_metrics_are_tried_on_validation_data_as_well() -> None:
    class Bent(Tensors):
        def validation_data(self) -> Any:
            return Points(3, shaken=False)

        def metrics(self, model: nn.Module, batch: Any) -> Any:
            return {"inside": (0, 2), **({"extra": 5} if "name" in batch else {})}

    learner = learner_of(Bent())
    with pytest.raises(ConfigError, match="metrics: has 5 for 'extra'"):
        try_metrics(learner.flat, learner.subject)


def test_trying_out_leaves_nothing_behind_that_training_would_see() -> None:
    tried, untried = learner_of(Line(dropout=0.5)), learner_of(Line(dropout=0.5))
    try_out(tried)
    for learner in (tried, untried):
        learner.gradient(learner.load(1))
    assert torch.equal(tried.flat.grad, untried.flat.grad)
