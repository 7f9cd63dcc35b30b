"""A tiny model world for tests of the server: softmax regression on numbers drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mpi_dcasgd.drivers.transport.chunks import cuts_of
from mpi_dcasgd.learning.data import Dataset
from mpi_dcasgd.learning.flat import FlatModel, StatisticsPolicy
from mpi_dcasgd.learning.groups import NO_GROUPS, Grouping
from mpi_dcasgd.learning.learner import Learner
from mpi_dcasgd.learning.subject import Subject
from mpi_dcasgd.learning.tasks.classification import classify
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.rules.algorithms import resolve_rule
from mpi_dcasgd.server.passage import Passage
from mpi_dcasgd.server.precision import WireSettings
from mpi_dcasgd.server.push import Answer, Push
from mpi_dcasgd.server.server import ParameterServer
from mpi_dcasgd.server.wire import round_gradient

CPU = torch.device("cpu")
LR = 0.05


class ToySplit:
    """Points around three centres."""

    def __init__(self, size: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 3, size)
        points = np.eye(3, 5)[labels] + 0.3 * rng.standard_normal((size, 5))
        self.inputs = torch.tensor(points, dtype=torch.float32)
        self.targets = torch.tensor(labels)

    def __len__(self) -> int:
        return len(self.targets)

    def batch(
        self, indices: NDArray[np.int64], rng: np.random.Generator | None
    ) -> tuple[Tensor, Tensor]:
        chosen = torch.from_numpy(indices)
        return self.inputs[chosen], self.targets[chosen]


def toy_dataset(num_train: int = 50) -> Dataset:
    return Dataset(
        name="toy",
        train=ToySplit(num_train, 1),
        test=ToySplit(20, 2),
        num_classes=3,
        input_shape=(5,),
        class_names=("a", "b", "c"),
    )


def toy_subject(num_train: int = 50) -> Subject:
    return classify(toy_dataset(num_train))


def toy_model(*, batchnorm: bool = False, dropout: float = 0.0, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Linear(5, 7), nn.Tanh()]
    if batchnorm:
        layers.insert(1, nn.BatchNorm1d(7, momentum=0.2))
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(7, 3))


class World:
    """A server and W workers in one process, moved by hand.

    Args:
        workers: How many.
        algorithm, rule: As in a job file.
        plan: The tickets; by default 50 samples in batches of 8 over 3 epochs.
        schedule: Learning rate by samples.
        grouping: Parameter groups.
        chunk_mb: Megabytes of a chunk, if pushes are to come in chunks.
        wire: What travels in 16 bits.
        model: Arguments of ``toy_model``.
    """

    def __init__(
        self,
        workers: int,
        algorithm: str = "asgd",
        rule: Mapping[str, Any] | None = None,
        *,
        plan: TicketPlan | None = None,
        ahead: int = 0,
        policy: StatisticsPolicy = "average",
        learner_plan: TicketPlan | None = None,
        schedule: Callable[[int], float] = lambda samples: LR,
        grouping: Grouping = NO_GROUPS,
        chunk_mb: float = 0,
        wire: WireSettings | None = None,
        **model: Any,
    ) -> None:
        self.plan = plan or TicketPlan(num_samples=50, batch_size=8, seed=3, epochs=3)
        subject = toy_subject(self.plan.num_samples)
        initial = FlatModel(toy_model(**model), CPU, policy, grouping=grouping)
        self.initial = initial.weights.clone()
        self.server = ParameterServer(
            initial.weights.clone(),
            initial.layout,
            resolve_rule(algorithm, rule),
            self.plan,
            schedule,
            workers,
            initial.stats_rate,
            ahead,
            cuts=cuts_of(chunk_mb, initial.layout.num_params),
            wire=wire,
        )
        self.learner_of_its_own = Learner(
            FlatModel(toy_model(**model), CPU, policy, grouping=grouping),
            subject,
            learner_plan or self.plan,
        )
        self.learners = []
        self.queues: list[list[int]] = [[] for _ in range(workers)]
        for slot in self.server.slots:
            flat = FlatModel(
                toy_model(**model), CPU, policy, weights=slot.snapshot, grouping=grouping
            )
            self.learners.append(Learner(flat, subject, learner_plan or self.plan))
        self.answers: list[Answer] = []

    def join(self) -> None:
        """All workers pull once."""
        for worker in range(len(self.learners)):
            self.receive(self.server.pull(worker))

    def receive(self, ready: list[int]) -> None:
        for worker in ready:
            self.queues[worker] += self.server.slots[worker].message.tickets

    def step(self, worker: int, passage: Passage | None = None, **changes: Any) -> Answer:
        """One worker computes its oldest ticket and pushes, whole or by a passage."""
        learner = self.learners[worker]
        found = learner.gradient(learner.load(self.queues[worker][0]))
        version, wire = self.server.slots[worker].version, self.server.wire
        vector = learner.flat.grad.clone()
        round_gradient(vector[: wire.num_params], wire.push, found.norm)
        push = Push(version, found.ticket, found.samples, found.loss, found.norm, vector)
        answer = self.server.push(worker, push._replace(**changes), passage)
        self.queues[worker].pop(0)
        self.receive(answer.ready)
        self.answers.append(answer)
        return answer

    def working(self) -> list[int]:
        return [w for w, slot in enumerate(self.server.slots) if slot.status == "working"]

    def run(self, order: Any = None) -> Tensor:
        """Run to the end, workers taking turns or as ``order(working)`` chooses."""
        self.join()
        turn = 0
        while not self.server.finished:
            working = self.working()
            worker = order(working) if order else min(working, key=lambda w: (w < turn, w))
            self.step(worker)
            turn = (worker + 1) % len(self.learners)
        return self.server.weights.clone()
