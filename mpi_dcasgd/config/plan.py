"""Plan of a job that has not been started: its ranks, its updates and what they need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpi_dcasgd.config.needs import Need, check_need, needs_of
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.simulated import backup_workers
from mpi_dcasgd.drivers.topology import Topology
from mpi_dcasgd.errors import ConfigError, LaunchError
from mpi_dcasgd.learning.data import Facts, known_facts
from mpi_dcasgd.rules.compatibility import Mode
from mpi_dcasgd.server.precision import Precision, WireSettings, message_bytes

if TYPE_CHECKING:  # ranks are checked without loading PyTorch
    from torch import nn

    from mpi_dcasgd.learning.flat import FlatLayout
    from mpi_dcasgd.server.shard import Shard


@dataclass(frozen=True)
class Plan:
    """The sizes of a run.

    Attributes:
        mode: How it is driven.
        world_size: Processes, servers included.
        num_workers: Processes that compute gradients.
        num_servers: Processes that serve.
        num_params: Trainable parameters.
        num_stats: BatchNorm's running statistics.
        num_samples: Of an epoch.
        tickets_per_epoch: Minibatches; of all workers together in a synchronous run.
        tickets: Of the whole run; as many updates, unless the rule merges or drops gradients.
        needs: What each kind of process holds.
        push_bytes, reply_bytes: Of a message, where there is a server; of several, of the longest.
        wire: What the numbers in messages are rounded to.
    """

    mode: Mode
    world_size: int
    num_workers: int
    num_servers: int
    num_params: int
    num_stats: int
    num_samples: int
    tickets_per_epoch: int
    tickets: int
    needs: tuple[Need, ...]
    push_bytes: int
    reply_bytes: int
    wire: WireSettings


def plan_job(job: Job, world_size: int, *, gpu: bool = False) -> Plan:
    """Work out the ranks, updates and memory of a job.

    Args:
        job: Checked.
        world_size: Ranks; 1 for a sequential run, at least 2 for an asynchronous one.
        gpu: Workers compute on GPUs, and stage through page-locked memory.

    Raises:
        DataError: The data are needed to know their shape, and are not there.
        ConfigError: The model does not take the data, or the job can only be simulated.
    """
    from mpi_dcasgd.learning.flat import FlatLayout
    from mpi_dcasgd.learning.tickets import TicketPlan

    check_real(job)
    mode = job.mode
    world = world_of(job, world_size)
    num_workers = world.num_workers
    data, module = _outline(job)
    layout = FlatLayout.of(module, job.grouping)
    group = num_workers * job.sync.accumulate if mode == "synchronous" else 1
    shards = divide(job, layout, world.num_servers)
    plan = TicketPlan(data.num_train, job.batch_size * group, job.seed, job.epochs)
    return Plan(
        mode=mode,
        world_size=world_size,
        num_workers=num_workers,
        num_servers=world.num_servers,
        num_params=layout.num_trainable,
        num_stats=sum(field.size for field in layout.stats),
        num_samples=data.num_train,
        tickets_per_epoch=plan.tickets_per_epoch,
        tickets=plan.num_tickets,
        needs=needs_of(
            mode,
            layout,
            job.rule,
            num_workers,
            data.resident_bytes,
            accumulate=job.sync.accumulate,
            best=job.checkpoint.best,
            gpu=gpu,
            transport=job.transport,
            shards=shards,
            wire=job.wire,
            chunks=bool(job.cuts(layout.num_params))
            and (job.transport != "shared" or job.faults.respawn),
        ),
        push_bytes=_longest(job.wire.push, shards),
        reply_bytes=_longest(job.wire.reply, shards),
        wire=job.wire,
    )


def check_models(jobs: Iterable[Job]) -> None:
    """Try out, on shapes alone, the models that do not know themselves what they take.

    Loading a job has checked the others. Data whose sizes follow from their files are left to the
    run's start, since to list them may take minutes.

    Args:
        jobs: Checked; they may differ in other things than model and data.

    Raises:
        ConfigError: One of them does not take its data.
    """
    tried = set()
    for job in jobs:
        key = f"{job.task} {job.model} {job.data} {job.batch_size} {job.compute}"
        if known_facts(job.data) is not None and not job.model.shapes_known and key not in tried:
            _outline(job)
            tried.add(key)


def _outline(job: Job) -> tuple[Facts, nn.Module]:
    """Return the sizes of the data, and the model without memory, if it takes them."""
    from mpi_dcasgd.learning.outline import lone_sample, model_of, sizes_of

    with job.importing():
        try:
            task = job.make_task()
            sizes = sizes_of(task, job.seed, job.data.validation)
            module = model_of(task, job.seed)
        except ConfigError as error:
            raise error.within(job.name) from error
        problems = lone_sample(task, job.batch_size, job.compute.accumulate, module)
    if problems:
        raise ConfigError(job.name, problems)
    return sizes, module


def check_real(job: Job) -> None:
    """Refuse a job that no real run can do.

    Raises:
        ConfigError: It has backup workers.
    """
    if backup_workers(job):
        raise ConfigError(
            job.name,
            [
                f"sync.backup: got {job.sync.backup}; an allreduce waits for every rank, so only "
                "simulated runs have backup workers: mpi-dcasgd simulate, or 0"
            ],
        )


def _longest(precision: Precision, shards: Sequence[Shard]) -> int:
    """Bytes of the longest message of a vector that is divided among servers."""
    return max(
        message_bytes(precision, shard.layout.num_params, shard.layout.num_stats)
        for shard in shards
    )


def divide(job: Job, layout: FlatLayout, servers: int) -> tuple[Shard, ...]:
    """Return the shards of a job's servers; the only one where there is none, or one, is the whole.

    Raises:
        ConfigError: The model has fewer elements than that many servers need.
    """
    from mpi_dcasgd.server.shard import shards_of

    try:
        return shards_of(layout, max(1, servers))
    except ConfigError as error:
        raise ConfigError(job.name, error.problems) from error


def check_ranks(job: Job, ranks: int | None) -> int:
    """Return the number of processes to start.

    Args:
        job: Checked.
        ranks: What the user asked for (``-n``), or None.

    Raises:
        LaunchError: The algorithm cannot run on so many ranks, or nothing says how many.
        ConfigError: The job can only be simulated.
    """
    check_real(job)
    if ranks is None and job.mode != "sequential":
        what = "a server and its workers" if job.mode == "asynchronous" else "all of which train"
        raise LaunchError(f"algorithm {job.algorithm} needs -n: the number of ranks, {what}")
    ranks = 1 if ranks is None else ranks
    return world_of(job, ranks, origin=f"-n {ranks}").world_size


def world_of(job: Job, world_size: int, *, origin: str = "") -> Topology:
    """Return the ranks of a job in a world of a given size.

    Args:
        job: Checked.
        world_size: Ranks, the server included.
        origin: Where the number comes from, for the message.

    Raises:
        LaunchError: The algorithm cannot run on so many ranks.
    """
    return Topology.of_world(
        job.mode, world_size, algorithm=job.algorithm, origin=origin, servers=job.servers
    )


def check_memory(plan: Plan, available: int | None, where: str) -> None:
    """Refuse a job whose server (or whose only process) does not fit into this host's memory.

    Args:
        plan: Of the job.
        available: Bytes, or None to check nothing.
        where: The job, in the message.

    Raises:
        ConfigError: With what each thing takes.
    """
    check_need(plan.needs[0], available, where, _remedy(plan))


def _remedy(plan: Plan) -> str:
    if plan.mode == "asynchronous":
        return (
            "use fewer workers, a rule that keeps less (docs/algorithms.md says how many vectors "
            "each keeps), several servers on different hosts (servers), or a host with more memory "
            "for rank 0"
        )
    return "use a host with more memory"
