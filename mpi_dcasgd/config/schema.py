"""The settings of one job, put together from those of the layers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, InstanceOf
from pydantic.dataclasses import dataclass

from mpi_dcasgd.drivers.fault_settings import FaultSettings
from mpi_dcasgd.drivers.simulation.injection import InjectSettings
from mpi_dcasgd.drivers.sync_settings import SyncSettings
from mpi_dcasgd.drivers.topology import Topology
from mpi_dcasgd.drivers.transport import TransportChoice
from mpi_dcasgd.drivers.transport.chunks import ChunkSize, cuts_of
from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.learning.data import DataSource
from mpi_dcasgd.learning.groups import Grouping, ParameterGroup
from mpi_dcasgd.learning.models import ModelSource
from mpi_dcasgd.learning.schedules import ScheduleSettings
from mpi_dcasgd.learning.settings import (
    ComputeSettings,
    Count,
    Positive,
    Seed,
    StartSettings,
    StatisticsPolicy,
    Threads,
)
from mpi_dcasgd.learning.task import Task
from mpi_dcasgd.learning.tasks import TaskSource
from mpi_dcasgd.learning.tasks.table import default_task
from mpi_dcasgd.modules import searching
from mpi_dcasgd.record.settings import CheckpointSettings, RecordSettings
from mpi_dcasgd.rules.algorithms import mode_of
from mpi_dcasgd.rules.compatibility import Mode
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.server.header import MAX_AHEAD
from mpi_dcasgd.server.precision import WireSettings


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Job:
    """One training experiment: model, data, algorithm; not where it runs, nor on how many workers.

    Attributes:
        rule: The resolved update rule. A job file need only say what differs from the named
            algorithm; job.yaml has it written out, every part with all of its settings.
    """

    name: Annotated[
        str,
        Field(
            min_length=1, description="what run folders and reports call it; else the file's name"
        ),
    ]
    algorithm: Annotated[str, Field(description="a named update rule and how it is driven")] = (
        "asgd"
    )
    seed: Annotated[
        Seed,
        Field(description="of the first weights, the order of samples and all randomness"),
    ] = 0
    epochs: Annotated[Count, Field(description="passes of all workers together over the data")]
    batch_size: Annotated[Count, Field(description="samples in a minibatch of one worker")]
    lr: Annotated[Positive, Field(description="learning rate, before the schedule")]
    schedule: Annotated[
        ScheduleSettings, Field(description="how lr changes with the samples applied")
    ] = field(default_factory=ScheduleSettings)
    rule: Annotated[
        InstanceOf[Rule], Field(description="changes to the algorithm's update rule, by role")
    ] = field(default_factory=Rule)
    groups: Annotated[
        tuple[ParameterGroup, ...],
        Field(description="parts of the model with factors of their own, or not trained"),
    ] = ()
    task: Annotated[
        TaskSource, Field(description="what is learnt: the loss and the metrics, and of some more")
    ] = field(default_factory=default_task)
    model: Annotated[ModelSource, Field(description="what is trained")]
    data: Annotated[DataSource, Field(description="what it is trained on")]
    start: Annotated[StartSettings, Field(description="where the first weights are from")] = field(
        default_factory=StartSettings
    )
    code: Annotated[
        str | None,
        Field(
            description="folder in which modules of `package.module:Name` are looked for first, "
            "relative to the job file; then in that file's folder, the current one, on PYTHONPATH"
        ),
    ] = None
    batchnorm: Annotated[
        StatisticsPolicy,
        Field(
            description="running statistics of BatchNorm: average keeps a running mean of those "
            "of all workers' minibatches, latest the last worker's own"
        ),
    ] = "average"
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        Field(description="what workers compute on; auto takes a GPU where there is one"),
    ] = "auto"
    threads: Annotated[Threads, Field(description="PyTorch's threads in each rank")] = 1
    evaluate_every: Annotated[
        Count, Field(description="evaluate every N epochs; final weights are always evaluated")
    ] = 1
    ahead: Annotated[
        Annotated[int, Field(ge=0, le=MAX_AHEAD)] | Literal["auto"],
        Field(
            description="minibatches that a worker is granted beyond the one it computes, to load "
            "them meanwhile; auto takes 2 for imagefolder, data.loaders where there are any (but "
            "at least 2), else 0"
        ),
    ] = "auto"
    fuse: Annotated[
        Literal["auto", "compiled", "blocks"],
        Field(
            description="how the server computes an update: one compiled pass over memory, or "
            "ordinary calls in cache-sized blocks; auto compiles where that pays"
        ),
    ] = "auto"
    transport: Annotated[
        TransportChoice,
        Field(
            description="how vectors travel between the server and workers on its host (several "
            "servers have to be on one host for it): auto shares memory with them where that is "
            "possible, messages never does, shared refuses a world in which it is not possible "
            "for every worker"
        ),
    ] = "auto"
    servers: Annotated[
        Count,
        Field(
            description="ranks that serve, each with a stretch of the weights, the first of which "
            "leads; several help where a server is saturated by long vectors"
        ),
    ] = 1
    chunk_mb: Annotated[
        ChunkSize,
        Field(
            description="megabytes of the chunks in which vectors travel where they are messages: "
            "a chunk is applied and sent back while the next is received; 0 for one piece; auto "
            "takes 4 for vectors of 16 or more between hosts, else 0; megabytes of float32, which "
            "are half as many on their way in 16 bits (wire)"
        ),
    ] = "auto"
    wire: Annotated[
        WireSettings, Field(description="numbers in 16 bits on their way: `wire: bf16`, or by way")
    ] = field(default_factory=WireSettings)
    capture: Annotated[
        Literal["auto", "off"],
        Field(
            description="on a GPU, auto records a gradient's computation once and launches it as "
            "one CUDA graph; off launches kernel by kernel"
        ),
    ] = "auto"
    compute: Annotated[
        ComputeSettings, Field(description="how a worker computes the gradient of a minibatch")
    ] = field(default_factory=ComputeSettings)
    sync: Annotated[SyncSettings, Field(description="synchronous runs only")] = field(
        default_factory=SyncSettings
    )
    inject: Annotated[
        InjectSettings,
        Field(description="delays on purpose, as in a simulated cluster, for tests and studies"),
    ] = field(default_factory=InjectSettings)
    faults: Annotated[
        FaultSettings, Field(description="what a run does about workers that hang")
    ] = field(default_factory=FaultSettings)
    checkpoint: Annotated[
        CheckpointSettings,
        Field(description="when a run's state is saved besides, where a signal stops it"),
    ] = field(default_factory=CheckpointSettings)
    record: Annotated[RecordSettings, Field(description="progress display and records")] = field(
        default_factory=RecordSettings
    )

    @property
    def mode(self) -> Mode:
        """Driving mode of the algorithm: sequential, synchronous or asynchronous."""
        return mode_of(self.algorithm)

    def importing(self) -> AbstractContextManager[None]:
        """Look for the modules of the user's own, within the block, where the job has them from."""
        return searching(self.code)

    def make_task(self) -> Task:
        """Make the task, for this process alone.

        Raises:
            ConfigError: Its constructor fails.
        """
        return self.task.make(self.model, self.data)

    def world(self, num_workers: int) -> Topology:
        """Return the ranks of a real run of this job with so many workers.

        Raises:
            LaunchError: The algorithm cannot run with so many.
        """
        return Topology.of_workers(
            self.mode, num_workers, algorithm=self.algorithm, servers=self.servers
        )

    def cuts(self, num_params: int) -> tuple[int, ...]:
        """Return where vectors that are messages are cut into chunks (``cuts_of``).

        The stretches of several servers travel in one piece each.

        Args:
            num_params: Parameters at the beginning of the vector.
        """
        return () if self.servers > 1 else cuts_of(self.chunk_mb, num_params)

    @property
    def grouping(self) -> Grouping:
        """Treatment of single parameters: the groups, and what weight decay acts on."""
        return Grouping(groups=self.groups, decay_on=self.rule.weight_decay.on)

    @property
    def tickets_ahead(self) -> int:
        """``ahead`` as a number."""
        if self.ahead != "auto":
            return self.ahead
        return min(self.data.tickets_ahead, MAX_AHEAD)
