"""A rank of a toy asynchronous run, started by mpirun from the tests or called in a shared world.

Argument: a JSON object with ``algorithm`` and optionally ``rule``, ``epochs``, ``ahead``,
``model``, ``fail`` (rank that raises in its third ticket), ``poison`` (ticket in which every rank
raises; it and ``tell`` have a rank tell the server and leave), ``die`` (rank that is killed there),
``slow`` (rank that computes each ticket many times over), ``odd`` (rank that claims too many
samples, or sends messages of so many ``words`` of four bytes), ``transport``, ``chunk_mb``,
``withhold`` (rank that sends one chunk of its third push, and the others when the server has put it
back), ``die_within`` (rank that is killed there) and ``apart`` (rank that takes itself for one in
another container). Rank 0 returns, or prints, what
happened as one JSON object.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import mpi4py

mpi4py.rc.thread_level = "funneled"

from mpi_dcasgd.quick import importing_torch  # noqa: E402

with importing_torch():
    import torch

import numpy as np  # noqa: E402
from mpi4py import MPI  # noqa: E402
from toy import CPU, LR, toy_model, toy_subject  # noqa: E402

from mpi_dcasgd.drivers import mpi_server  # noqa: E402
from mpi_dcasgd.drivers.backoff import wait_until  # noqa: E402
from mpi_dcasgd.drivers.conductor import Conductor, weights_sha256  # noqa: E402
from mpi_dcasgd.drivers.evaluator import Evaluator  # noqa: E402
from mpi_dcasgd.drivers.farewell import end_world  # noqa: E402
from mpi_dcasgd.drivers.mail import Post  # noqa: E402
from mpi_dcasgd.drivers.mpi_server import ServerLoop  # noqa: E402
from mpi_dcasgd.drivers.mpi_worker import Link, run_worker  # noqa: E402
from mpi_dcasgd.drivers.notes import tell_failure  # noqa: E402
from mpi_dcasgd.drivers.observer import NullObserver  # noqa: E402
from mpi_dcasgd.drivers.signals import (  # noqa: E402
    StopFlag,
    leave,
    outlives_deaths,
)
from mpi_dcasgd.drivers.transport.chunks import cuts_of  # noqa: E402
from mpi_dcasgd.drivers.transport.sharing import Place, Sharing, share_memory  # noqa: E402
from mpi_dcasgd.errors import DcasgdError, WorkersLostError  # noqa: E402
from mpi_dcasgd.learning.flat import FlatModel  # noqa: E402
from mpi_dcasgd.learning.learner import Batch, Gradient, Learner  # noqa: E402
from mpi_dcasgd.learning.tickets import TicketPlan  # noqa: E402
from mpi_dcasgd.rules.algorithms import resolve_rule  # noqa: E402
from mpi_dcasgd.server.message import Tag  # noqa: E402
from mpi_dcasgd.server.precision import WireSettings  # noqa: E402
from mpi_dcasgd.server.records import UpdateRecord  # noqa: E402
from mpi_dcasgd.server.server import ParameterServer  # noqa: E402
from mpi_dcasgd.server.wire import Wire  # noqa: E402

BEGUN, PUT_BACK = 91, 92  # tags


class Log(NullObserver):
    def __init__(self) -> None:
        self.records: list[UpdateRecord] = []
        self.messages: list[str] = []

    def update(self, record: UpdateRecord, time_s: float) -> None:
        self.records.append(record)

    def message(self, text: str) -> None:
        self.messages.append(text)

    def fault(self, text: str, missing: Sequence[str]) -> None:
        self.messages.append(text)


class OddLearner(Learner):
    """A learner that is slow, or that raises, on demand."""

    slow = False
    fail = False
    poison = -1
    die = False
    odd = False
    computed = 0

    def gradient(self, batch: Batch) -> Gradient:
        self.computed += 1
        if (self.fail and self.computed == 3) or batch.ticket == self.poison:
            raise RuntimeError("the cat sat on the keyboard")
        if self.die and self.computed == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        for _ in range(400 if self.slow else 0):
            super().gradient(batch)
        found = super().gradient(batch)
        return found._replace(samples=found.samples + 10**6) if self.odd else found


class HalfPush:
    """Sends the header and one chunk of the third push, and no more until something happens."""

    def __init__(self, comm: MPI.Comm, link: Link, *, die: bool) -> None:
        self.comm, self.link, self.die = comm, link, die
        self.sent = 0

    def send(self) -> None:
        self.sent += 1
        header, first, *rest = self.link._sends
        if self.sent != 3:
            self.link._out.add(self.link._sends)
            return
        for request in (header, first):
            request.Start()
            wait_until(request.Test)
        self.comm.recv(source=0, tag=BEGUN)
        if self.die:
            os.kill(os.getpid(), signal.SIGKILL)
        self.comm.recv(source=0, tag=PUT_BACK)
        self.link._out.add(rest)


class EagerPost(Post):
    """Begins every push as soon as it can, and tells the worker that waits for that."""

    tells: int | None = None
    put_backs = 0

    def _may_begin(self, worker: int) -> bool:
        box, peer = self.boxes[worker], self.peers[worker]
        begins = not box.disturbed and 0 not in box.missing
        if begins and peer.rank == self.tells and len(self.taken_from) == 2:
            peer.comm.send(None, peer.rank, BEGUN)
        return begins

    @property
    def taken_from(self) -> list[int]:
        return self.__dict__.setdefault("_taken_from", [])

    def taken(self, worker: int) -> None:
        super().taken(worker)
        if self.peers[worker].rank == self.tells:
            self.taken_from.append(worker)

    def put_back(self, worker: int) -> None:
        super().put_back(worker)
        self.put_backs += 1
        self.peers[worker].comm.isend(None, self.peers[worker].rank, PUT_BACK)


def share(comm: MPI.Comm, options: dict[str, Any], size: int) -> Sharing:
    here = Place.here
    if options.get("apart") == comm.rank:
        Place.here = classmethod(lambda cls: here()._replace(processes="pid:[1]"))  # type: ignore[method-assign,assignment]
    try:
        return share_memory(comm, options.get("transport", "auto"), size)
    finally:
        Place.here = here  # type: ignore[method-assign]


def cuts(options: dict[str, Any], num_params: int) -> tuple[int, ...]:
    return cuts_of(options.get("chunk_mb", 0), num_params)


def serve(comm: MPI.Comm, options: dict[str, Any], plan: TicketPlan) -> dict[str, Any]:
    flat = FlatModel(toy_model(**options.get("model", {})), CPU)
    server = ParameterServer(
        flat.weights,
        flat.layout,
        resolve_rule(options["algorithm"], options.get("rule")),
        plan,
        lambda samples: LR,
        comm.size - 1,
        flat.stats_rate,
        options.get("ahead", 0),
        cuts=cuts(options, flat.layout.num_params),
        wire=WireSettings(**options.get("wire", {})),
    )
    log = Log()
    evaluator = Evaluator(FlatModel(toy_model(**options.get("model", {})), CPU), toy_subject())
    conductor = Conductor(server, log, evaluator)
    sharing = share(comm, options, flat.layout.size)
    half = options.get("withhold", options.get("die_within"))
    genuine = mpi_server.Post
    if half is not None:
        EagerPost.tells = half
        mpi_server.Post = EagerPost  # type: ignore[misc]
    loop = ServerLoop(comm, server, conductor, StopFlag(), shared=sharing.segments)
    mpi_server.Post = genuine  # type: ignore[misc]
    comm.Barrier()
    conductor.begin(0.0)
    failure = ""
    try:
        loop.run()
    except DcasgdError as error:
        if "poison" not in options:
            raise
        failure = f"{type(error).__name__}: {error}"
    loop.close()
    conductor.finish([])
    return {
        "shares": [sharing.transport(worker) == "shared" for worker in range(comm.size - 1)],
        "sha": weights_sha256(server.weights, server.layout),
        "messages": log.messages,
        "failure": failure,
        "complete": server.complete,
        "tickets": [r.ticket for r in log.records],
        "workers": [r.worker for r in log.records],
        "staleness": [r.staleness for r in log.records],
        "actions": [int(r.action) for r in log.records],
        "put_backs": getattr(loop._post, "put_backs", 0),
        "counted": [account.updates for account in loop.accounts],
    }


def work(comm: MPI.Comm, options: dict[str, Any], plan: TicketPlan) -> None:
    model = toy_model(**options.get("model", {}))
    layout = FlatModel(toy_model(**options.get("model", {})), CPU).layout
    form = Wire.of(WireSettings(**options.get("wire", {})), layout.num_params, layout.num_stats)
    shared = share(comm, options, layout.size).own
    link = Link(comm, form, CPU, shared=shared, cuts=cuts(options, layout.num_params))
    flat = FlatModel(model, CPU, weights=link.reply.vector, grad=link.push.vector)
    learner = OddLearner(flat, toy_subject(), plan)
    learner.slow = options.get("slow") == comm.rank
    learner.die = options.get("die") == comm.rank
    learner.fail = options.get("fail") == comm.rank
    learner.poison = options.get("poison", -1)
    learner.odd = options.get("odd") == comm.rank
    if options.get("words") and options.get("odd") == comm.rank:
        raw = np.resize(link.push.raw, options["words"])
        link.send = lambda: comm.Send(raw, dest=0, tag=Tag.PUSH)  # type: ignore[method-assign]
    if comm.rank in (options.get("withhold"), options.get("die_within")):
        half = HalfPush(comm, link, die="die_within" in options)
        link.send = half.send  # type: ignore[method-assign]
    link.expect()
    comm.Barrier()
    try:
        run_worker(link, learner, background=options.get("ahead", 0) > 0)
    except RuntimeError as error:
        if not options.get("tell") and "poison" not in options:
            raise
        if not tell_failure(comm, str(error)):
            raise
    link.close()


def run(comm: MPI.Comm, options: dict[str, Any]) -> dict[str, Any] | None:
    """Take part in a run; rank 0 returns what happened."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    plan = TicketPlan(num_samples=50, batch_size=8, seed=3, epochs=options.get("epochs", 3))
    try:
        if comm.rank == 0:
            return serve(comm, options, plan)
        work(comm, options, plan)
        return None
    finally:
        torch.set_num_threads(threads)


def main() -> None:
    comm = MPI.COMM_WORLD
    try:
        happened = run(comm, json.loads(sys.argv[1]))
        if comm.rank == 0:
            print(json.dumps(happened))
    except WorkersLostError as error:
        print(f"rank {comm.rank}: {error}", file=sys.stderr, flush=True)
        leave(1)
    except Exception as error:
        print(f"rank {comm.rank}: {error}", file=sys.stderr, flush=True)
        end_world(comm, 1)
    if outlives_deaths():
        leave(0)


if __name__ == "__main__":
    main()
