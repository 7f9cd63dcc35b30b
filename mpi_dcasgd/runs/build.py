"""From a checked job to the objects that drivers move: data, model, plan, server, evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from mpi_dcasgd.config.needs import available_bytes
from mpi_dcasgd.config.one_process import check_one_process
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.evaluator import Evaluator
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.captured import make_learner
from mpi_dcasgd.learning.data.brought import BroughtData
from mpi_dcasgd.learning.data.identity import DataIdentity
from mpi_dcasgd.learning.flat import FlatLayout, FlatModel
from mpi_dcasgd.learning.learner import Learner
from mpi_dcasgd.learning.loaders.messages import Opening
from mpi_dcasgd.learning.loaders.pool import Loaders
from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.learning.outline import lone_sample, model_of
from mpi_dcasgd.learning.schedules import Schedule
from mpi_dcasgd.learning.subject import Subject
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.learning.trial import try_metrics, try_out
from mpi_dcasgd.pages import zeros
from mpi_dcasgd.runs.leftovers import let_go
from mpi_dcasgd.runs.resume import Standing
from mpi_dcasgd.runs.start_weights import StartWeights
from mpi_dcasgd.server.follower import Follower
from mpi_dcasgd.server.leader import Crew
from mpi_dcasgd.server.ledger import TicketLedger
from mpi_dcasgd.server.server import ParameterServer
from mpi_dcasgd.server.shard import Shard, way_of


@dataclass(frozen=True)
class Workshop:
    """Builder of the parts of a run in this process.

    Attributes:
        job: The checked job.
        subject: The task, with its data loaded for ``device``.
        device: Where this rank computes gradients or evaluates.
        group: Minibatches that make one update: all workers' in SSGD, else 1.
        standing: Where the run resumes.
        made: The subject as this process itself made it: no other process is asked for samples.
    """

    job: Job
    subject: Subject
    device: torch.device
    group: int = 1
    standing: Standing = field(default_factory=Standing)
    made: Subject | None = None

    @classmethod
    def open(
        cls,
        job: Job,
        device: torch.device,
        group: int = 1,
        standing: Standing | None = None,
        loaders: Loaders | None = None,
    ) -> Workshop:
        """Load the data.

        Args:
            job: The job.
            device: Where this rank computes gradients or evaluates.
            group: Minibatches that make one update.
            standing: Where the run resumes; None for its start.
            loaders: Load samples from now on; None to load them here.

        Raises:
            DataError: The data are missing or not what the job says.
            ConfigError: The model does not train on the last minibatch of an epoch.
        """
        let_go()
        torch.set_num_threads(job.threads)
        if device.type == "cuda":
            # Otherwise cuDNN may sum in another order each time, and no run could be replayed.
            torch.backends.cudnn.deterministic = True
            torch.backends.cudnn.benchmark = False
        loaders = loaders or Loaders(0)
        loaders.begin(
            Opening(job.name, job.task, job.model, job.data, job.seed, threads=job.threads)
        )
        subject = Subject.open(job.make_task(), job.seed, device, job.data.validation)
        made, subject = subject, loaders.adopt(subject)
        problems = lone_sample(subject.task, job.batch_size, job.compute.accumulate)
        if problems:
            raise ConfigError(job.name, problems)
        return cls(job, subject, device, group, standing or Standing(), made)

    @cached_property
    def identity(self) -> DataIdentity:
        """Identity of the data, to be compared with that of before.

        Raises:
            DataError: A sample cannot be read.
        """
        identity = DataIdentity.of(self.made or self.subject)
        return identity if self.start is None else replace(identity, start=self.start.as_plain())

    @cached_property
    def start(self) -> StartWeights | None:
        """The weights that the job begins with; None for the model's own.

        Raises:
            DataError: They cannot be read.
        """
        return StartWeights.of(self.job.start)

    def check_memory(self, num_workers: int) -> None:
        """Refuse a run of one process that does not fit into this host's memory.

        Args:
            num_workers: Slots that its server will have.

        Raises:
            ConfigError: With what each thing takes.
        """
        if self.device.type == "cpu":
            module = model_of(self.subject.task, self.job.seed)
            layout = FlatLayout.of(module, self.job.grouping)
            check_one_process(self.job, layout, num_workers, available_bytes())

    @property
    def measures(self) -> Measures:
        """The metrics of the job's task."""
        return Measures.of(self.subject.task)

    @property
    def plan(self) -> TicketPlan:
        """The tickets of whole updates."""
        job = self.job
        samples = len(self.subject.train)
        size = job.batch_size * self.group
        return TicketPlan(samples, size, job.seed, job.epochs, self.standing.start)

    @property
    def lr(self) -> float:
        """The job's rate, scaled for the size of a synchronous group if the job says so."""
        scaled = self.group > 1 and self.job.sync.lr_scaling == "linear"
        return self.job.lr * self.group if scaled else self.job.lr

    def flat_model(
        self,
        device: torch.device,
        weights: torch.Tensor | None = None,
        grad: torch.Tensor | None = None,
    ) -> FlatModel:
        """The job's model with its first weights: from a file, or such as follow from the seed.

        Raises:
            ConfigError: The weights of the file are not those of the model.
            DataError: They cannot be read.
        """
        model = self.subject.build_model(self.job.seed)
        if self.start is not None:
            self.start.put_into(model)
        return FlatModel(model, device, self.job.batchnorm, weights, grad, self.job.grouping)

    def server(
        self,
        num_workers: int,
        device: torch.device,
        ledger: TicketLedger | None = None,
        cuts: Sequence[int] = (),
        crew: Crew | None = None,
    ) -> ParameterServer:
        """The server's state machine where the run begins or resumes, its vectors on ``device``.

        Args:
            num_workers: Slots.
            device: Where weights, snapshots and the rule's state live.
            ledger: One of a replay, which prefetches nothing; None for the run's own.
            cuts: Elements at which all chunks but the first begin, where pushes come in chunks.
            crew: Other servers, which this one leads.
        """
        job = self.job
        plan = self.plan
        initial = self.flat_model(device)
        server = ParameterServer(
            initial.weights,
            initial.layout,
            job.rule,
            plan,
            Schedule(job.schedule, self.lr, plan.num_samples, job.epochs),
            num_workers,
            initial.stats_rate,
            job.tickets_ahead if ledger is None else 0,
            ledger,
            job.fuse,
            cuts,
            crew,
            job.wire if job.mode == "asynchronous" else None,
        )
        standing = self.standing
        if standing.server is not None:
            server.take_over(standing.server, tickets=standing.same_tickets)
            standing.server = None  # it is as large as the server, and has been used
        return server

    def follower(self, shard: Shard, num_workers: int) -> Follower:
        """The state machine of a server that follows, where a run begins."""
        initial = self.flat_model(torch.device("cpu"))
        own = shard.of(initial.weights)
        return Follower(
            zeros(own.numel()).copy_(own),
            shard,
            self.job.rule,
            num_workers,
            initial.stats_rate[: shard.layout.num_stats],
            way_of(initial.layout, self.job.fuse),
            self.job.wire,
        )

    def learner(self, flat: FlatModel, *, capture: bool = True) -> Learner:
        """Return the learner of this rank: single tickets, or its parts of a group's tickets.

        It has been tried out on a minibatch, which leaves a gradient behind in ``flat``.

        Args:
            flat: The model.
            capture: Whether gradients may be recorded, if the job lets them.

        Raises:
            ConfigError: The task's model or loss is not what it should be.
            DataError: The first samples cannot be had.
        """
        plan = self.plan.split(self.group)
        capture = capture and self.job.capture == "auto"
        learner = make_learner(flat, self.subject, plan, self.job.compute, capture=capture)
        try_out(learner)
        return learner

    def try_metrics(self) -> None:
        """Evaluate two samples, on the rank that will evaluate.

        Raises:
            ConfigError: The task's metrics are not what they should be.
            DataError: The samples cannot be had.
        """
        try_metrics(self._scoring, self.subject)

    def evaluator(self, *, background: bool = True) -> Evaluator:
        """Return an evaluator of copies of the weights, on a thread of its own or at once.

        Args:
            background: On a thread, unless evaluation draws random numbers while this process
                trains: both would draw from the same generators.
        """
        if self.job.mode != "asynchronous" and self.subject.task.evaluation_draws:
            background = False
        return Evaluator(self._scoring, self.subject, background=background)

    @cached_property
    def _scoring(self) -> FlatModel:
        """The model that evaluates; nothing else uses it once there is an evaluator."""
        return self.flat_model(self.device)


def start_loaders(job: Job) -> Loaders:
    """Start the processes that load samples for this rank, as many as the job says.

    A rank that only serves has them, too: it evaluates.
    """
    return Loaders(job.data.loaders if isinstance(job.data, BroughtData) else 0)
