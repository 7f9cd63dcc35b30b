"""Benchmark of the simulator: against a plain training loop, and without gradients.

The plain loop is what one would write without the package: the same batches of the same model in
the same order, ``zero_grad``, forward, backward, ``torch.optim.SGD``. It computes as many
gradients as the simulated workers together; the difference is the price of the simulation. Both
run in turn in one process, and the ratio is taken round by round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.drivers.evaluator import Evaluator
from mpi_dcasgd.drivers.observer import NullObserver
from mpi_dcasgd.drivers.simulation.asynchronous import Simulator
from mpi_dcasgd.drivers.simulation.cluster import Cluster, Network, ServerTimes
from mpi_dcasgd.drivers.simulation.delays import Gamma
from mpi_dcasgd.drivers.simulation.timing import simulate_timing
from mpi_dcasgd.learning.captured import make_learner
from mpi_dcasgd.learning.data import Dataset, ResidentSplit
from mpi_dcasgd.learning.flat import FlatModel
from mpi_dcasgd.learning.models import ModelSource, build_model
from mpi_dcasgd.learning.models.mlp import Mlp
from mpi_dcasgd.learning.models.resnet_cifar import CifarResNet
from mpi_dcasgd.learning.subject import Subject
from mpi_dcasgd.learning.tasks.classification import classify
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.rules.algorithms import resolve_rule
from mpi_dcasgd.rules.chain import Rule
from mpi_dcasgd.rules.fuse import Fuse
from mpi_dcasgd.server.server import ParameterServer
from mpi_dcasgd.tools.bench.spread import Spread

LR = 0.01
CIFAR_GRADIENTS = 160 * -(-50_000 // 128)
"""What ResNet-20 is trained with in Zheng et al. 2017: 160 epochs in minibatches of 128."""

_GPU_EPOCHS = 40  # a GPU is so much faster that the clock would see little of fewer
TIMING_WORKERS, TIMING_UPDATES = 10_000, 1_000_000


@dataclass(frozen=True)
class Case:
    """A model, its input, a batch size, gradients of an epoch, epochs of a round, and rounds.

    The shorter a round, the more of them: what else the machine does then weighs less.
    """

    name: str
    model: ModelSource
    shape: tuple[int, ...]
    batch_size: int
    gradients: int
    epochs: int
    rounds: int


CASES = (
    Case("mlp 64-128-10, batch 32", Mlp(), (1, 8, 8), 32, 400, 3, 15),
    Case(
        "mlp 784-512-512-10, batch 128",
        Mlp(hidden=(512, 512)),
        (1, 28, 28),
        128,
        100,
        # So many that the pages of all snapshots, new at the start, weigh nothing.
        4,
        9,
    ),
    Case("resnet20, batch 128", CifarResNet(name="resnet20"), (3, 32, 32), 128, 3, 1, 5),
)

_FUSES: tuple[tuple[Fuse, ...], ...] = (("auto", "compiled"), ("auto",), ("auto",))

RUNS = tuple(
    (case, algorithm, fuse)
    for case, fuses in zip(CASES, _FUSES, strict=True)
    for algorithm in ("asgd", "dcasgd-a")
    for fuse in fuses
)
"""What is measured: a short vector's update is compiled only if the job says so."""


@dataclass(frozen=True)
class Overhead:
    """Cost of a simulation beside a plain loop of as many gradients.

    Attributes:
        case: What was trained.
        algorithm: Whose rule the server ran.
        kernel: How it ran, ``compiled`` or ``blocks``.
        workers: Simulated.
        plain_s: Seconds a gradient of the plain loop, median of the rounds; of CPU time where
            the CPU computes.
        simulated_s: The same of the simulator.
        rounds: In which both took turns.
        ratio: Simulated over plain within a round.
    """

    case: str
    algorithm: str
    kernel: str
    workers: int
    plain_s: float
    simulated_s: float
    rounds: int
    ratio: Spread


@dataclass(frozen=True)
class TimingSpeed:
    """A timing-only simulation and the seconds that it took."""

    case: str
    workers: int
    updates: int
    wall_s: float


class _Noise(ResidentSplit):
    """Random samples: how long a step takes does not depend on what is learnt."""

    augments = False

    def __init__(self, case: Case, device: torch.device) -> None:
        self.device = device
        size = case.gradients * case.batch_size
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn((size, *case.shape), generator=generator).to(device)
        self.targets = torch.randint(0, 10, (size,), generator=generator).to(device)

    def __len__(self) -> int:
        return len(self.targets)

    def recipe(
        self, indices: NDArray[np.int64], rng: np.random.Generator | None
    ) -> NDArray[np.int64]:
        return indices[None]

    def make(self, recipe: Tensor) -> tuple[Tensor, Tensor]:
        return self.inputs[recipe[0]], self.targets[recipe[0]]


def measure_overhead(
    case: Case, algorithm: str, fuse: Fuse, workers: int, device: torch.device
) -> Overhead:
    """Run simulator and plain loop in turn, a round more than the case asks for, to warm up."""
    if device.type == "cuda":
        case = replace(case, epochs=_GPU_EPOCHS * case.epochs)
    split = _Noise(case, device)
    dataset = Dataset("noise", split, split, 10, case.shape, tuple(map(str, range(10))))
    subject = classify(dataset)
    plan = TicketPlan(len(split), case.batch_size, seed=0, epochs=case.epochs)

    def model() -> nn.Module:
        torch.manual_seed(0)
        return build_model(case.model, case.shape, 10)

    plain, simulated = [], []
    for _ in range(case.rounds + 1):
        plain.append(_plain_s(model().to(device), dataset, plan, device))
        made = _simulator(model, subject, plan, resolve_rule(algorithm), fuse, workers, device)
        simulated.append(_timed(made.run, device))
    pairs = list(zip(plain[1:], simulated[1:], strict=True))
    return Overhead(
        case=case.name,
        algorithm=algorithm,
        kernel=made.server.chain.kernel,
        workers=workers,
        plain_s=statistics.median(p for p, _ in pairs) / plan.num_tickets,
        simulated_s=statistics.median(s for _, s in pairs) / plan.num_tickets,
        rounds=case.rounds,
        ratio=Spread.of([s / p for p, s in pairs]),
    )


def measure_timing(
    workers: int = TIMING_WORKERS, updates: int = TIMING_UPDATES
) -> list[TimingSpeed]:
    """Time timing-only simulations: with a free server, and with all costs."""
    busy = Cluster(
        delays=Gamma(machine_cv=0.6),
        network=Network(latency_s=1e-3),
        server=ServerTimes(service_s=1.0 / workers),
    )
    found = []
    for name, cluster in (("free server", Cluster(delays=Gamma())), ("all costs", busy)):
        started = time.perf_counter()
        simulate_timing(cluster, workers, updates)
        found.append(TimingSpeed(name, workers, updates, time.perf_counter() - started))
    return found


def _plain_s(model: nn.Module, dataset: Dataset, plan: TicketPlan, device: torch.device) -> float:
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    model.train()

    def loop() -> None:
        total = 0.0
        for ticket in range(plan.num_tickets):
            inputs, targets = dataset.train.batch(plan.indices(ticket), None)
            optimizer.zero_grad()
            loss = cross_entropy(model(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item()

    return _timed(loop, device)


def _simulator(
    model: Callable[[], nn.Module],
    subject: Subject,
    plan: TicketPlan,
    rule: Rule,
    fuse: Fuse,
    workers: int,
    device: torch.device,
) -> Simulator:
    initial = FlatModel(model(), device)
    server = ParameterServer(
        initial.weights,
        initial.layout,
        rule,
        plan,
        lambda samples: LR,
        workers,
        initial.stats_rate,
        fuse=fuse,
    )
    learner = make_learner(FlatModel(model(), device), subject, plan)
    made = Simulator(server, learner, Cluster(delays=Gamma()), seed=0)
    evaluator = Evaluator(FlatModel(model(), device), subject, background=False)
    # No evaluation: it would take as long in a plain loop.
    conductor = Conductor(server, NullObserver(), evaluator, 10**9, clock=lambda: made.time_s)
    made.told = conductor.after
    return made


def _timed(work: Callable[[], None], device: torch.device) -> float:
    if device.type == "cpu":
        # Of this process only, so that others on the machine disturb less.
        started = time.process_time()
        work()
        return time.process_time() - started
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - started
