"""Laws of numbers that travel in 16 bits, for every asynchronous algorithm."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from mpi_dcasgd.drivers.simulation.recorded_order import RecordedLedger, replay
from mpi_dcasgd.drivers.simulation.turn import take_turn
from mpi_dcasgd.learning.flat import FlatModel
from mpi_dcasgd.learning.learner import Learner
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.rules.algorithms import ALGORITHMS, resolve_rule
from mpi_dcasgd.server.precision import WireSettings
from mpi_dcasgd.server.push import Push
from mpi_dcasgd.server.records import UpdateRecord, fingerprint
from mpi_dcasgd.server.server import ParameterServer
from mpi_dcasgd.server.wire import NarrowMessage
from tests.toy import CPU, LR, toy_model, toy_subject

WORKERS = 3
PLAN = TicketPlan(num_samples=50, batch_size=8, seed=3, epochs=3)
MODEL = {"batchnorm": True}
ASYNCHRONOUS = [name for name, one in ALGORITHMS.items() if one.mode == "asynchronous"]
WIRES = {
    "bf16": WireSettings(push="bf16", reply="bf16"),
    "fp16": WireSettings(push="fp16", reply="fp16"),
    "push alone": WireSettings(push="bf16"),
    "reply alone": WireSettings(reply="fp16"),
}
CASES = [(name, wire) for name in ASYNCHRONOUS for wire in ("bf16", "fp16")]
CASES += [("dcasgd-a", "push alone"), ("dcasgd-a", "reply alone")]


def make_server(algorithm: str, wire: str, ledger: RecordedLedger | None = None) -> ParameterServer:
    flat = FlatModel(toy_model(**MODEL), CPU)
    return ParameterServer(
        flat.weights,
        flat.layout,
        resolve_rule(algorithm),
        PLAN,
        lambda samples: LR,
        WORKERS,
        flat.stats_rate,
        ledger=ledger,
        wire=WIRES[wire],
    )


def make_learner(weights: torch.Tensor | None = None, grad: torch.Tensor | None = None) -> Learner:
    return Learner(
        FlatModel(toy_model(**MODEL), CPU, "average", weights, grad), toy_subject(), PLAN
    )


class Mail:
    """One worker that has nothing in common with the server: only bytes come and go."""

    def __init__(self, server: ParameterServer, worker: int) -> None:
        wire = server.wire
        self.slot = server.slots[worker]
        self.inbox, self.reply, self.push = (
            wire.push_message(),
            wire.reply_message(),
            wire.push_message(),
        )
        self.slot.carry(wire.reply_message())
        self.learner = make_learner(self.reply.vector, self.push.vector)

    def compute(self) -> Push:
        """Receive the reply, compute its ticket, and send the gradient."""
        self.reply.raw[:] = self.slot.message.raw
        if isinstance(self.reply, NarrowMessage):
            self.reply.unpack()
        assert torch.equal(self.reply.vector, self.slot.snapshot), "w_bak is what the worker got"
        (ticket,) = self.reply.tickets
        found = self.learner.gradient(self.learner.load(ticket))
        self.push.write_push(
            version=self.reply.version,
            ticket=ticket,
            samples=found.samples,
            loss=found.loss,
            grad_norm=found.norm,
        )
        if isinstance(self.push, NarrowMessage):
            self.push.pack(found.norm)
        self.inbox.raw[:] = self.push.raw
        return Push.of(self.inbox)


def by_mail(algorithm: str, wire: str) -> tuple[ParameterServer, list[UpdateRecord]]:
    """A whole run over messages, in an order drawn at random."""
    rng, server = random.Random(5), make_server(algorithm, wire)
    mail = [Mail(server, worker) for worker in range(WORKERS)]
    for worker in range(WORKERS):
        server.pull(worker)
    records = []
    while not server.finished:
        worker = rng.choice([w for w, slot in enumerate(server.slots) if slot.status == "working"])
        records.append(server.push(worker, mail[worker].compute()).record)
    return server, records


@pytest.mark.parametrize(("algorithm", "wire"), CASES)
def test_one_process_comes_to_the_bits_of_a_run_over_messages(algorithm: str, wire: str) -> None:
    server, records = by_mail(algorithm, wire)
    learner, again = make_learner(), make_server(algorithm, wire)
    for worker in range(WORKERS):
        again.pull(worker)
    state: dict[str, Any] = {}
    for number, record in enumerate(records):
        if number == len(records) // 2:
            state = again.state_dict()
        found, answer = take_turn(again, learner, record.worker, record.ticket)
        assert answer.record == record
        assert found.loss == record.loss
    assert torch.equal(again.weights, server.weights)
    resumed = make_server(algorithm, wire)
    resumed.load_state_dict(state)
    for record in records[len(records) // 2 :]:
        take_turn(resumed, learner, record.worker, record.ticket)
    assert torch.equal(resumed.weights, server.weights), "from a checkpoint in the middle, too"


@pytest.mark.parametrize("wire", ["bf16", "fp16"])
@pytest.mark.parametrize("algorithm", ["dcasgd-a", "dana"])
def test_a_run_is_replayed_bit_for_bit_under_its_own_wire_alone(algorithm: str, wire: str) -> None:
    server, records = by_mail(algorithm, wire)
    marks = [fingerprint(record.loss, record.grad_norm) for record in records]
    for other in ("bf16", "fp16"):
        ledger = RecordedLedger(records, WORKERS, finished=True)
        again = make_server(algorithm, other, ledger)
        difference = replay(again, make_learner(), records, marks)
        assert (difference is None) == (other == wire)
        if other == wire:
            assert torch.equal(again.weights, server.weights)


@pytest.mark.parametrize("algorithm", ["dcasgd-c", "dcasgd-a"])
def test_compensation_is_for_the_point_that_the_worker_was_at(algorithm: str) -> None:
    """With one worker nothing is stale, yet weights and what was sent of them differ."""
    server = make_server(algorithm, "reply alone")
    server.pull(0)
    before, snapshot = server.weights.clone(), server.slots[0].snapshot.clone()
    border = server.layout.num_params
    assert not torch.equal(before[:border], snapshot[:border])
    take_turn(server, make_learner(), 0, 0)
    plain = make_server("asgd", "reply alone")
    plain.pull(0)
    take_turn(plain, make_learner(), 0, 0)
    moved, without = server.weights - before, plain.weights - before
    drift = (before - snapshot)[:border]
    assert not torch.equal(moved[:border], without[:border])
    differs = (moved - without)[:border] != 0
    assert not (differs & (drift == 0)).any(), "only where rounding has moved the weights"
