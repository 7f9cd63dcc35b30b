"""Memory that each kind of process of a run needs, and whether a host has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpi_dcasgd.drivers.transport import TransportChoice
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.rules.compatibility import Mode
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.server.header import HEADER_BYTES
from mpi_dcasgd.server.precision import WireSettings, message_bytes
from mpi_dcasgd.wording import counted

if TYPE_CHECKING:  # ranks are checked without loading PyTorch
    from mpi_dcasgd.learning.flat import FlatLayout
    from mpi_dcasgd.server.shard import Shard

ELEMENT_BYTES = 4  # float32
GIB = 1 << 30


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


def needs_of(
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
    wire: WireSettings,
    chunks: bool,
) -> tuple[Need, ...]:
    """Return what each kind of process of a run holds, the most important first.

    Args:
        mode: How the run is driven.
        layout: Of the vector.
        rule: Its state is kept by the server.
        num_workers: Processes that compute gradients.
        data_bytes: Of the data that a process keeps in memory.
        accumulate: Minibatches of a synchronous rank that make a step.
        gpu: Whether workers compute on GPUs.
        best: Whether the best weights so far are kept.
        transport: How vectors are to travel.
        shards: Of all servers, in order.
        wire: What numbers in messages are rounded to.
        chunks: Whether a push may come in chunks.
    """
    vector = layout.size * ELEMENT_BYTES
    copies = rule.state_vectors(num_workers if mode == "asynchronous" else 1)
    state = (
        f"the rule's state, {counted(copies, 'vector')}",
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
        shares = transport != "messages"
        held = [_mail(shard.layout, wire, shares=shares)[0] for shard in shards]
        if transport == "shared":  # the first server has the memory of all
            held = [_mail(layout, wire, shares=True)[0], *(0 for _ in shards[1:])]
        served = [
            _serving(shard, copies, num_workers, its, wire)
            for shard, its in zip(shards, held, strict=True)
        ]
        server = _need("server", weights, *served[0], undo, evaluation, data)
        others = [
            _need(
                "each other server", ("its weights", shard.layout.size * ELEMENT_BYTES), *its, data
            )
            for shard, its in zip(shards[1:], served[1:], strict=True)
        ][-1:]  # the last is as long as the others, or longer
        travels = _mail(layout, wire, shares=shares)[1]
        staging = ("page-locked messages beside the GPU", travels if gpu else 0)
        narrow = travels if wire.rounds and not gpu and transport != "shared" else 0
        own = [computing, staging, ("messages to and from the server", narrow)]
        if shares:
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


def _serving(
    shard: Shard, copies: int, num_workers: int, held: int, wire: WireSettings
) -> list[tuple[str, int]]:
    """Return what a server has of its stretch, beside the weights.

    Args:
        shard: The stretch.
        copies: Vectors of the rule's state.
        num_workers: Number of workers.
        held: Bytes that the server holds for the vectors of each.
        wire: What numbers in messages are rounded to.
    """
    mail = f"a snapshot and a push of {counted(num_workers, 'worker')}"
    state = copies * shard.layout.num_params * ELEMENT_BYTES
    vector = shard.layout.size * ELEMENT_BYTES
    return [
        (f"the rule's state, {counted(copies, 'vector')}", state),
        (mail, num_workers * held),
        ("a push as float32", vector if wire.push != "float32" else 0),
    ]


def _mail(layout: FlatLayout, wire: WireSettings, *, shares: bool) -> tuple[int, int]:
    """Bytes that a server holds for a worker's vectors, and of the worker's two messages.

    Numbers of 16 bits are beside the snapshot; where memory may be shared, both are float32.
    """
    whole, push, reply = (
        message_bytes(precision, layout.num_params, layout.num_stats)
        for precision in ("float32", wire.push, wire.reply)
    )
    held = push + reply + (whole - HEADER_BYTES if wire.reply != "float32" else 0)
    return max(held, 2 * whole if shares else 0), push + reply


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


def _need(who: str, *items: tuple[str, int]) -> Need:
    return Need(who, tuple(item for item in items if item[1]))
