"""One rank of ``bench mpi``: how many pushes and pulls a second the server deals with.

Started as ``python -m mpi_dcasgd.tools.bench.mpi_rank JSON`` in a world of one server and any
number of workers, whose gradients cost nothing. The very loops of a run move the messages. In turns
with them, in the same world, the same messages go to and fro with nothing done to them, by MPI's
own wait (``raw_messages.py``), and the server's update runs alone, on the server's own vectors.
Where server and workers share memory the messages are headers. Rank 0 prints a JSON list.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import mpi4py
import torch

mpi4py.rc.thread_level = "funneled"

from mpi_dcasgd.drivers import mpi_variables  # noqa: E402

with mpi_variables.for_start(asynchronous=True):
    from mpi4py import MPI  # the thread level has to be chosen before

from mpi_dcasgd.drivers.backoff import wait_until  # noqa: E402
from mpi_dcasgd.drivers.crew import MpiCrew  # noqa: E402
from mpi_dcasgd.drivers.mpi_server import ServerLoop  # noqa: E402
from mpi_dcasgd.drivers.mpi_worker import Link, run_worker  # noqa: E402
from mpi_dcasgd.drivers.signals import StopFlag  # noqa: E402
from mpi_dcasgd.drivers.topology import SERVER, Topology  # noqa: E402
from mpi_dcasgd.drivers.transport import Transport  # noqa: E402
from mpi_dcasgd.drivers.transport.chunks import AUTO_MB, cuts_of  # noqa: E402
from mpi_dcasgd.drivers.transport.sharing import Sharing, share_memory  # noqa: E402
from mpi_dcasgd.drivers.world import host_spin_s  # noqa: E402
from mpi_dcasgd.learning.tickets import TicketPlan  # noqa: E402
from mpi_dcasgd.pages import zeros  # noqa: E402
from mpi_dcasgd.rules.algorithms import resolve_rule  # noqa: E402
from mpi_dcasgd.rules.part import Facts  # noqa: E402
from mpi_dcasgd.rules.rule import Rule  # noqa: E402
from mpi_dcasgd.server.header import HEADER_BYTES  # noqa: E402
from mpi_dcasgd.server.message import Message  # noqa: E402
from mpi_dcasgd.server.precision import FLOAT_BYTES, WireSettings  # noqa: E402
from mpi_dcasgd.server.server import ParameterServer  # noqa: E402
from mpi_dcasgd.server.wire import Wire  # noqa: E402
from mpi_dcasgd.tools.bench import mpi_servers, raw_messages  # noqa: E402
from mpi_dcasgd.tools.bench.stand_ins import Instant, Nobody, layout_of  # noqa: E402
from mpi_dcasgd.tools.bench.ways import Way, wire_of  # noqa: E402

_CPU = torch.device("cpu")


class Rates(NamedTuple):
    """Bare messages to and fro, updates alone, and pushes with their pulls, each a second."""

    raw: float
    update: float
    server: float


def measure(
    comm: MPI.Comm,
    algorithm: str,
    size: int,
    updates: int,
    way: Way = "messages",
    chunk_mb: float = AUTO_MB,
    servers: int = 1,
) -> Rates:
    """Rates on rank 0, zeros elsewhere; every rank must call it.

    Args:
        comm: The world.
        algorithm: Of the server.
        size: Elements of a vector.
        updates: How many pushes.
        way: How vectors travel between server and workers.
        chunk_mb: Megabytes of a chunk, if they travel in chunks.
        servers: Servers, which come first; several have no chunks.

    Raises:
        LaunchError: They are to share memory, and cannot.
    """
    world = _world(comm, servers)
    rounds = -(-updates // world.num_workers)
    pause_s = host_spin_s(comm)
    if servers > 1:
        return _several(comm, world, algorithm, size, updates, pause_s, way)
    wire = Wire.of(wire_of(way), size)
    sent = 0 if way == "shared" else (wire.push_bytes - HEADER_BYTES) // FLOAT_BYTES
    cuts = cuts_of(chunk_mb if way == "chunks" else 0, size)
    transport: Transport = "shared" if way == "shared" else "messages"
    if world.worker_of(comm.rank) is None:
        raw_s = raw_messages.serve(comm, world, sent, rounds)
        sharing = share_memory(comm, transport, size)
        update_s, server_s = _serve(comm, sharing, algorithm, wire, updates, pause_s, cuts)
        return Rates(rounds * world.num_workers / raw_s, 1 / update_s, updates / server_s)
    raw_messages.push_and_pull(comm, sent, rounds)
    _work(comm, share_memory(comm, transport, size), wire, pause_s, cuts)
    return Rates(0.0, 0.0, 0.0)


def _world(comm: MPI.Comm, servers: int = 1) -> Topology:
    return Topology.of_world(
        "asynchronous", comm.size, algorithm="of the benchmark", servers=servers
    )


def _several(
    comm: MPI.Comm,
    world: Topology,
    algorithm: str,
    size: int,
    updates: int,
    pause_s: float,
    way: Way,
) -> Rates:
    rule, workers = resolve_rule(algorithm), world.num_workers
    wire = wire_of(way)
    raw_s, update_s, server_s = mpi_servers.measure(
        comm,
        world,
        layout_of(size),
        rule,
        updates,
        pause_s,
        "shared" if way == "shared" else "messages",
        wire,
        lambda crew: _server(rule, size, updates, workers, crew=crew, wire=wire),
        lambda server: _update_alone(server, updates, Sharing()),
        Nobody(),
        Instant,
    )
    if not server_s:
        return Rates(0.0, 0.0, 0.0)
    rounds = -(-updates // workers)
    return Rates(rounds * workers / raw_s, 1 / update_s, updates / server_s)


def _work(
    comm: MPI.Comm, sharing: Sharing, wire: Wire, pause_s: float, cuts: Sequence[int]
) -> None:
    link = Link(comm, wire, _CPU, pause_s, shared=sharing.own, cuts=cuts)
    link.push.vector.fill_(1e-3)
    link.expect()
    wait_until(comm.Ibarrier().Test)  # the server measures its update alone meanwhile
    comm.Barrier()
    run_worker(link, Instant(link), background=False)
    link.close()


def _serve(
    comm: MPI.Comm,
    sharing: Sharing,
    algorithm: str,
    wire: Wire,
    updates: int,
    pause_s: float,
    cuts: Sequence[int],
) -> tuple[float, float]:
    """Seconds of an update alone, and of all pushes."""
    workers = _world(comm).num_workers
    rounding = WireSettings(push=wire.push, reply=wire.reply)
    rule = resolve_rule(algorithm)
    server = _server(rule, wire.size, updates, workers, cuts=cuts, wire=rounding)
    loop = ServerLoop(comm, server, Nobody(), StopFlag(), pause_s, shared=sharing.segments)
    update_s = _update_alone(server, updates, sharing)
    wait_until(comm.Ibarrier().Test)
    comm.Barrier()
    started = time.perf_counter()
    loop.run()
    spent_s = time.perf_counter() - started
    loop.close()
    return update_s, spent_s


def _server(
    rule: Rule,
    size: int,
    updates: int,
    workers: int,
    *,
    cuts: Sequence[int] = (),
    crew: MpiCrew | None = None,
    wire: WireSettings | None = None,
) -> ParameterServer:
    return ParameterServer(
        zeros(size).normal_(),
        layout_of(size),
        rule,
        TicketPlan(updates, 1, 0, 1),
        lambda samples: 1e-6,
        workers,
        torch.empty(0),
        cuts=cuts,
        crew=crew,
        wire=wire,
    )


def _update_alone(server: ParameterServer, updates: int, sharing: Sharing) -> float:
    """Seconds of an update, the workers in turn, on vectors like those of the run."""
    workers, size = range(server.num_workers), server.slot_layout.size
    weights = server.weights[:size]  # of a server that has a part of them, the first
    pushed = [
        sharing.segments[worker].push.fill_(1e-3)
        if worker in sharing.segments
        else Message(size).vector.fill_(1e-3)
        for worker in workers
    ]
    facts = [Facts(1e-6, 1e-6, len(workers) - 1, 5, w, len(workers), 1.0) for w in workers]
    for worker in workers:
        server.slots[worker].snapshot.copy_(weights)
        server.chain.apply(weights, pushed[worker], server.slots[worker].snapshot, facts[worker])
    started = time.perf_counter()
    for number in range(updates):
        worker = number % len(workers)
        server.chain.apply(weights, pushed[worker], server.slots[worker].snapshot, facts[worker])
    return (time.perf_counter() - started) / updates


class _Worlds:
    """The ranks, as worlds of one number of workers and several numbers of servers."""

    def __init__(self, comm: MPI.Comm, servers: Sequence[int]) -> None:
        self._comm = comm
        self.servers = sorted(set(servers))
        largest = _world(comm, self.servers[-1])
        self.num_workers = largest.num_workers
        sizes = {
            one: Topology("asynchronous", self.num_workers, one).world_size for one in self.servers
        }
        self._worlds = {
            one: comm if size == comm.size else comm.Split(int(comm.rank >= size))
            for one, size in sizes.items()
        }
        self._sizes = sizes

    def run(self, servers: int, step: Callable[[MPI.Comm], Rates]) -> Rates:
        """Take a step in the world with so many servers, while other ranks wait for its end."""
        inside = self._comm.rank < self._sizes[servers]
        rates = step(self._worlds[servers]) if inside else Rates(0.0, 0.0, 0.0)
        if self._sizes[servers] < self._comm.size:
            wait_until(self._comm.Ibarrier().Test)
        return rates


def main(spec: dict[str, Any]) -> None:
    """Measure each size and rule: messages, update and server in turns, once a round."""
    torch.set_num_threads(1)
    comm = MPI.COMM_WORLD
    worlds = _Worlds(comm, spec.get("servers", [1]))
    workers = worlds.num_workers
    results: list[dict[str, Any]] = []
    for size in spec["params"]:
        updates = spec.get("pushes") or max(12 * workers, min(2000, int(5e8 / size)))
        found: dict[tuple[str, Way, int], list[Rates]] = {
            (rule, way, servers): []
            for rule in spec["rules"]
            for servers in worlds.servers
            for way in spec["transports"]
            if servers == 1 or way != "chunks"
        }
        for warm in (True, *[False] * spec["rounds"]):
            for (rule, way, servers), rates in found.items():
                step = partial(
                    measure,
                    algorithm=rule,
                    size=size,
                    updates=4 * workers if warm else updates,
                    way=way,
                    chunk_mb=spec.get("chunk_mb", AUTO_MB),
                    servers=servers,
                )
                rate = worlds.run(servers, step)
                if not warm:
                    rates.append(rate)
        for (rule, way, servers), rates in found.items():
            raw, update, server = zip(*rates, strict=True)
            results.append(
                {
                    "workers": workers,
                    "params": size,
                    "rule": rule,
                    "transport": way,
                    "servers": servers,
                    "per_s": server,
                    "raw_per_s": raw,
                    "update_per_s": update,
                }
            )
    if comm.rank == SERVER:
        print(json.dumps(results))


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except BaseException:
        # The other ranks would wait for this one for ever.
        traceback.print_exc()
        MPI.COMM_WORLD.Abort(1)
