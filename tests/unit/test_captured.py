"""Gradients that are recorded once and repeated: the same bits as computed one by one."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from op_graphs import OpGraphs
from torch import Tensor, nn
from toy import CPU, LR, toy_dataset, toy_model

from mpi_dcasgd.drivers.simulation.asynchronous import Simulator
from mpi_dcasgd.drivers.simulation.cluster import Cluster
from mpi_dcasgd.drivers.simulation.delays import Gamma
from mpi_dcasgd.drivers.simulation.injection import Injection, InjectSettings
from mpi_dcasgd.drivers.simulation.slowed_learner import SlowedLearner
from mpi_dcasgd.learning.captured import CapturedLearner, CudaGraphs, make_learner
from mpi_dcasgd.learning.data import DATA, Dataset, ResidentSplit, load_dataset
from mpi_dcasgd.learning.data.digits import Digits
from mpi_dcasgd.learning.flat import FlatModel, StatisticsPolicy
from mpi_dcasgd.learning.learner import Learner
from mpi_dcasgd.learning.models import build_model
from mpi_dcasgd.learning.models.cnn import Cnn
from mpi_dcasgd.learning.tasks.classification import classify
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.learning.trial import try_out
from mpi_dcasgd.rules.algorithms import resolve_rule
from mpi_dcasgd.server.records import Action, UpdateRecord
from mpi_dcasgd.server.server import ParameterServer

DIGITS = Digits(augment="standard")
CNN = Cnn(dropout=0.3, batchnorm=True)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(DIGITS, seed=0)


def cnn(
    dataset: Dataset, policy: StatisticsPolicy = "average", device: torch.device = CPU
) -> FlatModel:
    torch.manual_seed(0)
    return FlatModel(build_model(CNN, dataset.input_shape, dataset.num_classes), device, policy)


def plan_of(dataset: Dataset) -> TicketPlan:
    """Two sizes of tickets: 22 of 64 samples an epoch and one of 29."""
    return TicketPlan(len(dataset.train), batch_size=64, seed=0, epochs=2)


def check_equal(one: Learner, other: Learner, tickets: tuple[int, ...]) -> None:
    for ticket in tickets:
        mine, theirs = (learner.gradient(learner.load(ticket)) for learner in (one, other))
        assert mine[:4] == theirs[:4]
        assert torch.equal(one.flat.grad, other.flat.grad)
        assert torch.equal(one.flat.weights, other.flat.weights)
        for learner in (one, other):  # whoever reads old weights is found out
            learner.flat.params.sub_(learner.flat.grad[: learner.flat.layout.num_params], alpha=0.1)


@pytest.mark.parametrize("policy", ["average", "latest"])
def test_recorded_gradients_are_those_computed_one_by_one(
    digits: Dataset, policy: StatisticsPolicy
) -> None:
    graphs, plan = OpGraphs(), plan_of(digits)
    captured = CapturedLearner(cnn(digits, policy), classify(digits), plan, graphs)
    # With augmentation, dropout and BatchNorm; tickets 22 and 45 are short.
    tickets = (0, 5, 22, 23, 45, 7)
    check_equal(Learner(cnn(digits, policy), classify(digits), plan), captured, tickets)
    assert len(graphs.recorded) == 2  # one for each size
    assert graphs.repeated == len(tickets)
    assert captured.captured


def test_warming_up_records_both_sizes(digits: Dataset) -> None:
    graphs = OpGraphs()
    captured = CapturedLearner(cnn(digits), classify(digits), plan_of(digits), graphs)
    try_out(captured)
    assert len(graphs.recorded) == 2
    captured.gradient(captured.load(3))
    assert len(graphs.recorded) == 2


def test_a_batch_of_samples_on_the_device_is_made_within_the_graph(digits: Dataset) -> None:
    captured = CapturedLearner(cnn(digits), classify(digits), plan_of(digits), OpGraphs())
    batch = captured.load(0)
    assert batch.nest.dtype == torch.int64
    assert batch.nest.shape == (4, 64)  # sample, top, left, flipped
    assert batch.samples == 64


def test_batches_that_are_loaded_are_copied_into_the_graph() -> None:
    dataset, plan = toy_dataset(50), TicketPlan(num_samples=50, batch_size=8, seed=3, epochs=3)
    assert not isinstance(dataset.train, ResidentSplit)
    one, other = (FlatModel(toy_model(dropout=0.5), CPU) for _ in range(2))
    graphs = OpGraphs()
    captured = CapturedLearner(other, classify(dataset), plan, graphs)
    check_equal(Learner(one, classify(dataset), plan), captured, (0, 1, 6, 2))
    assert graphs.repeated == 4


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_what_lies_on_the_device_is_made_of_a_recipe(name: str) -> None:
    augment = "standard" if name == "digits" else "none"
    train = load_dataset(DATA[name](name=name, augment=augment), seed=0).train
    assert isinstance(train, ResidentSplit)
    plan = TicketPlan(len(train), batch_size=32, seed=0, epochs=1)
    indices = plan.indices(1)
    found = train.batch(indices, plan.generator(1))
    recipe = torch.from_numpy(train.recipe(indices, plan.generator(1)))
    for mine, theirs in zip(train.make(recipe), found, strict=True):
        assert torch.equal(mine, theirs)


def simulate(digits: Dataset, learner: Learner) -> tuple[Tensor, list[UpdateRecord]]:
    initial = cnn(digits, device=learner.device)
    server = ParameterServer(
        initial.weights,
        initial.layout,
        resolve_rule("dcasgd-a"),
        learner.plan,
        lambda samples: LR,
        3,
        initial.stats_rate,
    )
    made = Simulator(server, learner, Cluster(delays=Gamma()), seed=0)
    told: list[UpdateRecord] = []
    made.told = told.append
    made.run()
    return server.weights, told


def test_a_simulated_run_is_the_same_with_recorded_gradients(digits: Dataset) -> None:
    plan, graphs = plan_of(digits), OpGraphs()
    weights, told = simulate(digits, Learner(cnn(digits), classify(digits), plan))
    captured = CapturedLearner(cnn(digits), classify(digits), plan, graphs)
    others, also_told = simulate(digits, captured)
    assert torch.equal(weights, others)
    assert told == also_told
    assert len(told) == plan.num_tickets == graphs.repeated


class Asking(nn.Module):
    """Looks at its input in Python, for which a GPU has to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = toy_model(dropout=0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x if x.sum().item() > 0 else -x)


def test_a_model_that_cannot_be_recorded_is_computed_after_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dataset, plan = toy_dataset(50), TicketPlan(num_samples=50, batch_size=8, seed=3, epochs=3)
    captured = CapturedLearner(FlatModel(Asking(), CPU), classify(dataset), plan, OpGraphs())
    with caplog.at_level(logging.WARNING):
        check_equal(
            Learner(FlatModel(Asking(), CPU), classify(dataset), plan), captured, (0, 1, 6, 2)
        )
    assert not captured.captured
    (line,) = [record.getMessage() for record in caplog.records]
    assert "cannot be recorded as a graph (operation not permitted" in line


class Spoilt(nn.Module):
    """A model whose BatchNorm meets an infinite input that its output does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = toy_model()
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        self.norm((x * torch.inf).detach())
        scores: Tensor = self.inner(x)
        return scores


def test_statistics_that_are_not_finite_are_told_and_refused() -> None:
    dataset, plan = toy_dataset(50), TicketPlan(num_samples=50, batch_size=8, seed=3, epochs=3)
    initial = FlatModel(Spoilt(), CPU)
    server = ParameterServer(
        initial.weights,
        initial.layout,
        resolve_rule("asgd"),
        plan,
        lambda samples: LR,
        1,
        initial.stats_rate,
    )
    learner = CapturedLearner(FlatModel(Spoilt(), CPU), classify(dataset), plan, OpGraphs())
    found = learner.gradient(learner.load(0))
    assert found.norm > 0
    assert found.stats_finite is False
    before = server.weights.clone()
    made = Simulator(server, learner, Cluster(), seed=0)
    told: list[UpdateRecord] = []
    made.told = told.append
    made.run(1)
    assert told[0].action is Action.NONFINITE
    assert torch.equal(server.weights, before)


def test_a_norm_whose_square_overflows_is_found_all_the_same() -> None:
    dataset, plan = toy_dataset(50), TicketPlan(num_samples=50, batch_size=8, seed=3, epochs=3)

    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = toy_model()
            self.scale = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.inner(x)
            return scores + 1e25 * self.scale * x[:, :3]

    one, other = (FlatModel(Steep(), CPU) for _ in range(2))
    captured = CapturedLearner(other, classify(dataset), plan, OpGraphs())
    expected = Learner(one, classify(dataset), plan)
    mine, theirs = (learner.gradient(learner.load(0)) for learner in (captured, expected))
    assert 1e20 < theirs.norm < float("inf")
    assert mine[:4] == theirs[:4]


def test_a_slowed_task_loads_and_computes_as_the_one_that_it_slows(digits: Dataset) -> None:
    graphs, plan = OpGraphs(), plan_of(digits)
    captured = CapturedLearner(cnn(digits), classify(digits), plan, graphs)
    slowed = SlowedLearner(captured, Injection(InjectSettings(slow={0: 1.0}), 0, 1, seed=0))
    check_equal(Learner(cnn(digits), classify(digits), plan), slowed, (0, 22))
    assert graphs.repeated == 2


def test_nothing_is_recorded_on_a_cpu(digits: Dataset) -> None:
    assert type(make_learner(cnn(digits), classify(digits), plan_of(digits))) is Learner


@pytest.mark.gpu
@pytest.mark.parametrize("policy", ["average", "latest"])
def test_on_a_gpu_a_graph_finds_the_same_bits(
    policy: StatisticsPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    device = torch.device("cuda", 0)
    dataset = load_dataset(DIGITS, 0, device)
    learners: list[Any] = [
        make_learner(
            cnn(dataset, policy, device), classify(dataset), plan_of(dataset), capture=capture
        )
        for capture in (False, True)
    ]
    check_equal(learners[0], learners[1], (0, 5, 22, 23, 45, 7))
    assert learners[1].captured


@pytest.mark.gpu
def test_on_a_gpu_a_simulated_run_is_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    device = torch.device("cuda", 0)
    dataset = load_dataset(DIGITS, 0, device)
    found = []
    for _ in range(2):
        flat, graphs = cnn(dataset, device=device), CudaGraphs(device)
        learner = CapturedLearner(flat, classify(dataset), plan_of(dataset), graphs)
        weights, _ = simulate(dataset, learner)
        assert learner.captured
        found.append(weights.cpu())
    assert torch.equal(*found)
