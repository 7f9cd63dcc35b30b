"""Plan clusters that nobody has at hand: rates of asynchronous and synchronous training in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mpi_dcasgd.config.load import Override
from mpi_dcasgd.drivers.simulation.cluster import Cluster
from mpi_dcasgd.drivers.simulation.delays import NAMES
from mpi_dcasgd.drivers.simulation.linked_engine import engine_of
from mpi_dcasgd.drivers.simulation.network import Exchange
from mpi_dcasgd.drivers.simulation.step_clock import StepClock
from mpi_dcasgd.drivers.simulation.timing import CountingSite
from mpi_dcasgd.errors import ConfigError, did_you_mean
from mpi_dcasgd.runs.simulation import KEYS, Simulation, resolve_simulation
from mpi_dcasgd.server.header import HEADER_BYTES

MEASURED: Mapping[str, float] = {"service_s": 25e-6, "bytes_per_s": 4e9}
"""A server's time of a push unless said otherwise: DC-ASGD-a on one core, messages copied in and
out, as ``bench mpi`` found it (docs/performance.md)."""

STEP_S = 0.2
GBIT = 25.0
LATENCY_S = 20e-6
TASK_CV = 0.05
HIDDEN = 0.5
"""Share of a step beside which an allreduce can run: most of the backward pass."""

BUSY = 0.8
"""Load of servers and links up to which queues are short."""

MAX_SERVERS = 4096
_OPTIONS = {"workers": "--workers", "exchange.servers": "--servers", "delay_seed": "--seed"}
_KEPT_VECTORS = 2  # at the servers, beside what each worker needs: weights, and a rule's state
_VECTORS_A_WORKER = 2  # a push, and the snapshot from which the reply is sent
_CYCLES, _LEAST_UPDATES, _STEPS = 12, 3000, 30


@dataclass(frozen=True, kw_only=True)
class ScalingRow:
    """One number of workers; rates are gradients a second.

    Attributes:
        workers: How many.
        ideal_per_s: Of workers that never wait.
        one_server_per_s: Asynchronous, with one server; what it can take at most, where it is
            asked for twice as much.
        servers: The fewest with which servers and links are busy for at most ``BUSY`` of the time
            and each fits into its memory, or as many as were asked for.
        enough: Whether there are so many; if not, the time that a push takes each server,
            whatever its size, is the limit.
        server_bytes: Vectors that each of them keeps.
        async_per_s: Asynchronous, with those servers.
        staleness: Its mean.
        async_slow_per_s: The same with one slow worker.
        sync_per_s: Synchronous, by allreduce.
        sync_slow_per_s: The same with one slow worker.
    """

    workers: int
    ideal_per_s: float
    one_server_per_s: float
    servers: int
    enough: bool
    server_bytes: float
    async_per_s: float
    staleness: float
    async_slow_per_s: float
    sync_per_s: float
    sync_slow_per_s: float

    @property
    def pays(self) -> float:
        """Asynchronous over synchronous gradients a second."""
        return self.async_per_s / self.sync_per_s

    @property
    def pays_slow(self) -> float:
        """The same with one slow worker."""
        return self.async_slow_per_s / self.sync_slow_per_s


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """A plan.

    Attributes:
        params: Elements of the vector.
        cluster: What was simulated.
        slow: How many times as long the slow worker's steps take.
        rows: One for each number of workers.
    """

    params: int
    cluster: Cluster
    slow: float
    rows: tuple[ScalingRow, ...]

    @property
    def vector_bytes(self) -> int:
        """Bytes of the vector in float32."""
        return 4 * self.params


def plan_scaling(
    params: int,
    workers: Sequence[int] = (16, 64, 256, 1024, 4096),
    *,
    step_s: float | None = None,
    gbit: float | None = None,
    servers: int | None = None,
    server_gib: float | None = None,
    slow: float = 4.0,
    seed: int = 0,
    words: Sequence[str] = (),
    show: Callable[[ScalingRow], None] = lambda row: None,
) -> Scaling:
    """Simulate the timing of training on clusters of several sizes, without any gradient.

    Args:
        params: Elements of the vector that is exchanged.
        workers: Numbers of workers, a row each.
        step_s: Mean seconds of a worker's step; None for 0.2.
        gbit: Gbit/s of each worker's and each server's link; None for 25.
        servers: How many there are; None for as many as it takes.
        server_gib: GiB of memory for vectors in each server, to be kept to; None for any.
        slow: How many times as long the steps of the slow worker take.
        seed: Of the delays.
        words: ``key=value`` of a cluster (docs/simulator.md), which go before the rest. Without
            ``cluster=FILE``, what is not said is as docs/scaling.md lists it.
        show: Called with every row when it is ready.

    Raises:
        ConfigError: The cluster is wrong.

    Example:
        >>> plan = plan_scaling(270_000, [16], step_s=0.1, gbit=10)
        >>> plan.rows[0].servers
        1
    """
    described = _described(words, step_s, gbit, servers)
    cluster, size = described.cluster, HEADER_BYTES + 4 * params
    rows = []
    for number in workers:
        row = _row(cluster, number, size, slow, seed, servers, server_gib)
        show(row)
        rows.append(row)
    return Scaling(params=params, cluster=cluster, slow=slow, rows=tuple(rows))


def _described(
    words: Sequence[str], step_s: float | None, gbit: float | None, servers: int | None
) -> Simulation:
    """Read the words, on the ground of what is assumed, or of a file."""
    keys = {word.partition("=")[0] for word in words}
    problems = [f"{key}: use {option}" for key, option in _OPTIONS.items() if key in keys]
    problems += [
        f"{key}: unknown{did_you_mean(key.partition('.')[0], KEYS)}; a plan takes the keys of a "
        f"cluster ({', '.join(KEYS)}) and no job's"
        for key in keys
        if key.partition(".")[0] not in KEYS
    ]
    more: list[Override] = [("workers", 1)]
    if servers is not None:
        more.append(("exchange.servers", servers))
    if "cluster" in keys:
        problems += [
            f"{option}: has no effect beside cluster=FILE; set {key}=..."
            for option, key, value in (
                ("--step-s", "delays.mean_s", step_s),
                ("--gbit", "network.server_bytes_per_s", gbit),
            )
            if value is not None
        ]
    else:
        more.append(("cluster", _assumed(words, STEP_S if step_s is None else step_s, gbit)))
    if problems:
        raise ConfigError("command line", problems)
    # A name of delays is in the ground already, with the step time.
    rest = [word for word in words if "cluster" in keys or word.partition("=")[2] not in NAMES]
    found = resolve_simulation(rest, more)
    if found.cluster.delays.mean_s == 0:
        raise ConfigError("command line", ["delays.mean_s: got 0; allowed: more than 0 seconds"])
    return found


def _assumed(words: Sequence[str], step_s: float, gbit: float | None) -> dict[str, Any]:
    names = [word.partition("=")[2] for word in words if word.startswith("delays=")]
    known = [NAMES[name] for name in names if name in NAMES]
    jitter = {"model": "gamma", "task_cv": TASK_CV, "machine_cv": 0}
    link = (GBIT if gbit is None else gbit) * 1e9 / 8
    return {
        "delays": {**(known[-1] if known else jitter), "mean_s": step_s},
        "network": {
            "latency_s": LATENCY_S,
            "bytes_per_s": link,
            "server_bytes_per_s": link,
            "hidden_s": HIDDEN * step_s,
        },
        "server": dict(MEASURED),
    }


def _row(
    cluster: Cluster,
    workers: int,
    size: int,
    slow: float,
    seed: int,
    servers: int | None,
    server_gib: float | None,
) -> ScalingRow:
    asked = servers is not None
    most = None if server_gib is None else server_gib * (1 << 30)
    number, enough = (servers or 1, True) if asked else needed(cluster, workers, size, most)
    sharded = _with_servers(cluster, number)
    straggler = {**cluster.slow, 0: slow * cluster.slow.get(0, 1.0)}
    one_rate = _one_server(cluster, workers, size, seed)
    rate, staleness = _asynchronous(sharded, workers, size, seed)
    slow_rate, _ = _asynchronous(replace(sharded, slow=straggler), workers, size, seed)
    return ScalingRow(
        workers=workers,
        ideal_per_s=workers / float(cluster.delays.mean_s),
        one_server_per_s=one_rate,
        servers=number,
        enough=enough,
        server_bytes=kept_bytes(workers, size) / number,
        async_per_s=rate,
        staleness=staleness,
        async_slow_per_s=slow_rate,
        sync_per_s=_synchronous(cluster, workers, size, seed),
        sync_slow_per_s=_synchronous(replace(cluster, slow=straggler), workers, size, seed),
    )


def _one_server(cluster: Cluster, workers: int, size: int, seed: int) -> float:
    """Gradients a second; what it can take where it is asked for twice as much."""
    alone = _with_servers(cluster, 1)
    asked_per_s, most_per_s = _load(alone, workers, size)
    if asked_per_s > 2 * most_per_s:
        return most_per_s
    return _asynchronous(alone, workers, size, seed)[0]


def _load(cluster: Cluster, workers: int, size: int) -> tuple[float, float]:
    """Pushes a second of workers that never queue, and the most that the servers can take."""
    carriage = cluster.carriage(size)
    cycle_s = float(cluster.delays.mean_s) + 2 * carriage.message_s + carriage.order_s
    return workers / (cycle_s + carriage.service_s), carriage.pushes_per_s


def kept_bytes(workers: int, size: int) -> int:
    """Return the bytes of vectors that all servers together keep."""
    return (_VECTORS_A_WORKER * workers + _KEPT_VECTORS) * size


def needed(cluster: Cluster, workers: int, size: int, most: float | None) -> tuple[int, bool]:
    """Return the fewest servers that are enough, and whether so many are.

    Args:
        cluster: Whose servers' number does not matter.
        workers: How many they serve.
        size: Bytes of a vector.
        most: Bytes that each can keep; None for any number.
    """
    for servers in range(1, MAX_SERVERS + 1):
        if most is not None and kept_bytes(workers, size) > servers * most:
            continue
        asked_per_s, most_per_s = _load(_with_servers(cluster, servers), workers, size)
        if asked_per_s <= BUSY * most_per_s:
            return servers, True
        nearly_s = 1.1 * cluster.server.service_s
        if 1 / most_per_s < nearly_s and asked_per_s * nearly_s > BUSY:
            return servers, False  # more would hardly make a push any shorter
    return MAX_SERVERS, False


def _with_servers(cluster: Cluster, servers: int) -> Cluster:
    exchange = cluster.exchange
    return replace(
        cluster,
        exchange=Exchange(
            servers=servers,
            element_bytes=exchange.element_bytes,
            chunk_bytes=exchange.chunk_bytes,
        ),
    )


def _asynchronous(cluster: Cluster, workers: int, size: int, seed: int) -> tuple[float, float]:
    """Gradients a second and mean staleness, over the second half of some cycles of each worker."""
    updates = max(_LEAST_UPDATES, _CYCLES * workers)
    site = CountingSite(workers, updates)
    engine = engine_of(cluster, workers, size, seed, site)
    engine.run(updates // 2)
    begun_s, before = engine.now, site.staleness.copy()
    engine.run()
    entered = site.staleness - before
    count = sum(entered.values())
    mean = sum(staleness * times for staleness, times in entered.items()) / count
    return count / (engine.now - begun_s), mean


def _synchronous(cluster: Cluster, workers: int, size: int, seed: int) -> float:
    """Gradients a second."""
    clock = StepClock(cluster, workers, workers, size - HEADER_BYTES, seed)
    for _ in range(_STEPS):
        clock.step()
    return _STEPS * workers / clock.now
