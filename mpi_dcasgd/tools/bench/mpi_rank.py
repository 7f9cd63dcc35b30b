"""One rank of ``bench mpi``: how many pushes and pulls a second the server deals with.

Started as ``python -m mpi_dcasgd.tools.bench.mpi_rank JSON`` in a world of one server and any
number of workers, whose gradients cost nothing. The very loops of a run move the messages. Beside
them, in the same world and in turns, the same messages go to and fro with nothing done to them.
Rank 0 prints a JSON list.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

import mpi4py
import torch
from torch import Tensor

mpi4py.rc.thread_level = "funneled"

from mpi4py import MPI  # noqa: E402 # the thread level has to be chosen before

from mpi_dcasgd.drivers.backoff import Backoff, spin_s, wait_until  # noqa: E402
from mpi_dcasgd.drivers.conductor import Conductor  # noqa: E402
from mpi_dcasgd.drivers.mpi_server import ServerLoop  # noqa: E402
from mpi_dcasgd.drivers.mpi_worker import Link, run_worker  # noqa: E402
from mpi_dcasgd.drivers.signals import StopFlag  # noqa: E402
from mpi_dcasgd.drivers.topology import Topology  # noqa: E402
from mpi_dcasgd.drivers.world import host_ranks  # noqa: E402
from mpi_dcasgd.learning.flat import Field, FlatLayout  # noqa: E402
from mpi_dcasgd.learning.learner import Batch, Gradient, Learner  # noqa: E402
from mpi_dcasgd.learning.tickets import TicketPlan  # noqa: E402
from mpi_dcasgd.rules.algorithms import resolve_rule  # noqa: E402
from mpi_dcasgd.server.message import Kind, Message, Tag  # noqa: E402
from mpi_dcasgd.server.records import UpdateRecord  # noqa: E402
from mpi_dcasgd.server.server import ParameterServer  # noqa: E402

RAW = "raw MPI"
_CPU = torch.device("cpu")


class _Vectors:
    """Stand-in for a flat model: a place where weights arrive and gradients leave."""

    def __init__(self, link: Link) -> None:
        self.weights: Tensor = link.reply.vector
        self.grad: Tensor = link.push.vector


class _Instant(Learner):
    """A learner without a model, whose gradient is always the same."""

    def __init__(self, link: Link) -> None:
        self.flat = _Vectors(link)  # type: ignore[assignment]
        self._lookahead = None

    def load(self, ticket: int) -> Batch:
        return Batch(ticket, 1, ())

    def gradient(self, batch: Batch) -> Gradient:
        return Gradient(batch.ticket, 1, 0.1, 1.0)


class _Nobody(Conductor):
    """Is told, and does nothing."""

    def __init__(self) -> None:
        pass

    def after(self, record: UpdateRecord) -> None:
        pass

    def poll(self) -> None:
        pass

    def fault(self, text: str, missing: Sequence[str]) -> None:
        print(text, file=sys.stderr, flush=True)


def measure(comm: MPI.Comm, what: str, size: int, updates: int) -> float:
    """Pushes a second, on rank 0; every rank must call it.

    Args:
        comm: The world.
        what: ``RAW``, or the algorithm of the server.
        size: Elements of a vector.
        updates: How many pushes.
    """
    pause_s = spin_s(host_ranks(comm)[1])
    if comm.rank:
        link = Link(comm, size, _CPU, pause_s)
        link.push.vector.fill_(1e-3)
        link.expect()
        comm.Barrier()
        run_worker(link, _Instant(link), background=False)
        link.close()
        return 0.0
    run = _echo if what == RAW else _serve
    return updates / run(comm, what, size, updates, pause_s)


def _world(comm: MPI.Comm) -> Topology:
    return Topology.of_world("asynchronous", comm.size, algorithm="of the benchmark")


def _serve(comm: MPI.Comm, algorithm: str, size: int, updates: int, pause_s: float) -> float:
    layout = FlatLayout((Field("vector", (size,), 0, size),), (), size, 0)
    server = ParameterServer(
        torch.randn(size),
        layout,
        resolve_rule(algorithm),
        TicketPlan(updates, 1, 0, 1),
        lambda samples: 1e-6,
        _world(comm).num_workers,
        torch.empty(0),
    )
    loop = ServerLoop(comm, server, _Nobody(), StopFlag(), pause_s)
    comm.Barrier()
    started = time.perf_counter()
    loop.run()
    spent_s = time.perf_counter() - started
    loop.close()
    return spent_s


def _echo(comm: MPI.Comm, what: str, size: int, updates: int, pause_s: float) -> float:
    world = _world(comm)
    workers = range(world.num_workers)
    inbox, outbox = ([Message(size) for _ in workers] for _ in range(2))
    receives = [
        comm.Recv_init(inbox[w].raw, source=world.rank_of(w), tag=Tag.PUSH) for w in workers
    ]
    sends = [comm.Send_init(outbox[w].raw, dest=world.rank_of(w), tag=Tag.REPLY) for w in workers]
    granted = done = 0
    comm.Barrier()
    started = time.perf_counter()
    answer = list(workers)
    backoff = Backoff(pause_s)
    while True:
        for worker in answer:
            wait_until(sends[worker].Test, pause_s)
            if granted < updates:
                outbox[worker].write_reply(Kind.WORK, 0, (granted,))
                receives[worker].Start()
                granted += 1
            else:
                outbox[worker].write_reply(Kind.STOP, 0, ())
            sends[worker].Start()
        done += len(answer)
        if done == updates + len(workers):
            break
        answer = MPI.Request.Testsome(receives) or []
        backoff.reset() if answer else backoff.pause()
    for send in sends:
        wait_until(send.Test, pause_s)
    spent_s = time.perf_counter() - started
    for request in (*receives, *sends):
        request.Free()
    return spent_s


def main(spec: dict[str, Any]) -> None:
    """Measure each size: all kinds in turns, as many times as there are rounds."""
    torch.set_num_threads(1)
    comm = MPI.COMM_WORLD
    workers = _world(comm).num_workers
    results = []
    for size in spec["params"]:
        updates = max(12 * workers, min(2000, int(5e8 / size)))
        kinds = [RAW, *spec["rules"]]
        rates: dict[str, list[float]] = {kind: [] for kind in kinds}
        for warm in (True, *[False] * spec["rounds"]):
            for kind in kinds:
                few = 4 * workers
                rate = measure(comm, kind, size, few if warm else updates)
                if not warm:
                    rates[kind].append(rate)
        results.append({"workers": workers, "params": size, "per_s": rates})
    if comm.rank == 0:
        print(json.dumps(results))


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except BaseException:
        # The other ranks would wait for this one for ever.
        traceback.print_exc()
        MPI.COMM_WORLD.Abort(1)
