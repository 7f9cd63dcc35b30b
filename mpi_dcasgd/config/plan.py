"""Plan of a job that has not been started: its ranks, updates and memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.simulated import backup_workers
from mpi_dcasgd.drivers.topology import Topology
from mpi_dcasgd.drivers.transport import TransportChoice
from mpi_dcasgd.drivers.transport.chunks import cuts_of
from mpi_dcasgd.errors import ConfigError, LaunchError
from mpi_dcasgd.learning.data import Facts, known_facts
from mpi_dcasgd.rules.compatibility import Mode
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.server.header import HEADER_BYTES

if TYPE_CHECKING:  # ranks are checked without loading PyTorch
    from torch import nn

    from mpi_dcasgd.learning.flat import FlatLayout
    from mpi_dcasgd.server.shard import Shard

ELEMENT_BYTES = 4  # float32


@dataclass(frozen=True)
class Need:
    """Memory that one kind of process needs.

    Attributes:
        who: ``"server"``, ``"each worker"``, ...
        items: Their purposes and bytes.
    """

    who: str
    items: tuple[tuple[str, int], ...]

    @property
    def total_bytes(self) -> int:
        return sum(size for _, size in self.items)


@dataclass(frozen=True)
class Plan:
    """The sizes of a run.

    Attributes:
        mode: How it is driven.
        world_size: Processes, servers included.
        num_workers: Processes that compute gradients.
        num_servers: Processes that serve.
        push_bytes: Length of a push to the server that has the longest stretch.
        num_params: Trainable parameters.
        num_stats: BatchNorm's running statistics.
        num_samples: Of an epoch.
        tickets_per_epoch: Minibatches; of all workers together in a synchronous run.
        tickets: Of the whole run; as many updates, unless the rule merges or drops gradients.
        needs: What each kind of process holds.
    """

    mode: Mode
    world_size: int
    num_workers: int
    num_servers: int
    push_bytes: int
    num_params: int
    num_stats: int
    num_samples: int
    tickets_per_epoch: int
    tickets: int
    needs: tuple[Need, ...]


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
        push_bytes=max(shard.layout.size for shard in shards) * ELEMENT_BYTES,
        num_params=layout.num_trainable,
        num_stats=sum(field.size for field in layout.stats),
        num_samples=data.num_train,
        tickets_per_epoch=plan.tickets_per_epoch,
        tickets=plan.num_tickets,
        needs=_needs(
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
            chunks=len(shards) == 1
            and bool(cuts_of(job.chunk_mb, layout.num_params))
            and (job.transport != "shared" or job.faults.respawn),
        ),
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
        key = f"{job.task} {job.model} {job.data} {job.batch_size}"
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
        problems = lone_sample(task, job.batch_size, module)
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


def _needs(
    mode: Mode,
    layout: FlatLayout,
    rule: Rule,
    num_workers: int,
    data_bytes: int,
    *,
    accumulate: int,
    gpu: bool,
    best: bool,
    transport: TransportChoice,
    shards: Sequence[Shard],
    chunks: bool,
) -> tuple[Need, ...]:
    vector = layout.size * ELEMENT_BYTES
    message = vector + HEADER_BYTES
    copies = rule.state_vectors(num_workers if mode == "asynchronous" else 1)
    state = (
        f"the rule's state, {_count(copies, 'vector')}",
        copies * layout.num_params * ELEMENT_BYTES,
    )
    data = ("the data, kept in memory", data_bytes)
    evaluation = (
        f"evaluation: weights and gradient of its model, a snapshot{', the best' if best else ''}",
        (3 + best) * vector,
    )
    weights = ("the weights", vector)
    computing = ("the model's weights and gradient", 2 * vector)
    if mode == "asynchronous":
        # A push that comes in chunks can be put back: weights, snapshot and one worker's state.
        kept = (2 + rule.state_vectors(1)) * layout.num_params * ELEMENT_BYTES
        undo = ("copies of what a push in chunks changes", kept if chunks else 0)
        served = [_serving(shard, copies, num_workers) for shard in shards]
        server = _need("server", weights, *served[0], undo, evaluation, data)
        others = [
            _need(
                "each other server", ("its weights", shard.layout.size * ELEMENT_BYTES), *its, data
            )
            for shard, its in zip(shards[1:], served[1:], strict=True)
        ][-1:]  # the last is as long as the others, or longer
        staging = ("page-locked messages beside the GPU", 2 * message if gpu else 0)
        own = [computing, staging]
        if transport != "messages" and not others:
            # The last of these is what the server keeps for the worker, where both are on one host.
            what, size = own.pop(1 if gpu else 0)
            where = (f"{what}; on the server's host they are the server's", size)
            own += [] if transport == "shared" else [where]
        return (server, *others, _need("each worker", *own, data))
    if mode == "sequential":
        return (_need("the process", weights, computing, state, evaluation, data),)
    summed = ("the sum of several minibatches", vector if accumulate > 1 else 0)
    return (
        _need("each rank", weights, computing, summed, state, data),
        _need("rank 0, beside that", evaluation),
    )


def _serving(shard: Shard, copies: int, num_workers: int) -> list[tuple[str, int]]:
    """Return what a server has of its stretch, beside the weights."""
    mail = f"a snapshot and a push of {_count(num_workers, 'worker')}"
    message = shard.layout.size * ELEMENT_BYTES + HEADER_BYTES
    state = copies * shard.layout.num_params * ELEMENT_BYTES
    return [
        (f"the rule's state, {_count(copies, 'vector')}", state),
        (mail, 2 * num_workers * message),
    ]


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


def _need(who: str, *items: tuple[str, int]) -> Need:
    return Need(who, tuple(item for item in items if item[1]))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


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


GIB = 1 << 30


def available_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Memory that programs can still have on this host, or None where that cannot be told."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


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


def check_need(need: Need, available: int | None, where: str, remedy: str) -> None:
    """Refuse a process that does not fit into this host's memory.

    Args:
        need: Of the process.
        available: Bytes, or None to check nothing.
        where: The job, in the message.
        remedy: Advice, which ends the message.

    Raises:
        ConfigError: With what each thing takes.
    """
    if available is None or need.total_bytes <= available:
        return
    items = "; ".join(f"{size / GIB:.1f} GiB for {what}" for what, size in need.items)
    raise ConfigError(
        where,
        [
            f"{need.who}: needs {need.total_bytes / GIB:.1f} GiB ({items}), but this host has "
            f"{available / GIB:.1f} GiB available; {remedy}"
        ],
    )


def _remedy(plan: Plan) -> str:
    if plan.mode == "asynchronous":
        return (
            "use fewer workers, a rule that keeps less (docs/algorithms.md says how many vectors "
            "each keeps), several servers on different hosts (servers), or a host with more memory "
            "for rank 0"
        )
    return "use a host with more memory"
