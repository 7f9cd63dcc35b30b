"""The server's state machine: snapshots, staleness, tickets, refusal. No MPI anywhere."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from toy import LR, World

from mpi_dcasgd.errors import NonFiniteError, ProtocolError
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.rules.admission import Admission, Verdict
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.server.header import MAX_AHEAD, MAX_GRANTS
from mpi_dcasgd.server.push import Push
from mpi_dcasgd.server.records import Action
from mpi_dcasgd.server.refusals import MAX_ATTEMPTS


def shuffled(seed: int):  # type: ignore[no-untyped-def]
    rng = random.Random(seed)
    return lambda working: rng.choice(working)


class Scripted(Admission):
    """Gives the verdicts that it is told, one after the other, and notes what it was asked.

    Two held gradients make a step.
    """

    def follow(self, verdicts: Sequence[Verdict]) -> list[Facts]:
        """Begin with these verdicts; the facts of each push, as they come."""
        noted: list[Facts] = []
        object.__setattr__(self, "_verdicts", iter(verdicts))
        object.__setattr__(self, "_noted", noted)
        return noted

    def verdict(self, facts: Facts) -> Verdict:
        self._noted.append(facts)  # type: ignore[attr-defined]
        return next(self._verdicts)  # type: ignore[attr-defined,no-any-return]

    def collect(self, num_workers: int) -> int:
        return 2


def scripted(world: World, *verdicts: Verdict) -> list[Facts]:
    """Have the world's server follow these verdicts; the facts of each push."""
    admission = Scripted()
    world.server.rule = replace(world.server.rule, admission=admission)
    return admission.follow(verdicts)


@pytest.mark.parametrize("algorithm", ["dcasgd-c", "dcasgd-a"])
def test_lambda_zero_is_asgd_bit_for_bit(algorithm: str) -> None:
    plain = World(3, "asgd").run(shuffled(1))
    compensated = World(3, algorithm, {"compensation": {"dc_lambda": 0.0}}).run(shuffled(1))
    assert torch.equal(plain, compensated)


@pytest.mark.parametrize("algorithm", ["asgd", "dcasgd-c", "dcasgd-a"])
def test_one_worker_is_the_sequential_run_bit_for_bit(algorithm: str) -> None:
    world = World(1, algorithm)
    weights = world.run()
    # Written out: plain SGD over the tickets in order.
    learner = World(1).learners[0]
    expected = world.initial.clone()
    for ticket in range(world.plan.num_tickets):
        learner.flat.weights.copy_(expected)
        learner.gradient(learner.load(ticket))
        expected -= learner.flat.grad * LR
    assert torch.equal(weights, expected)


def test_each_worker_has_its_own_snapshot_equal_to_what_it_was_sent() -> None:
    world = World(2, "dcasgd-c")
    world.join()
    slots = world.server.slots
    assert torch.equal(slots[0].snapshot, world.initial)
    assert torch.equal(slots[1].snapshot, world.initial)
    world.step(0)
    assert torch.equal(slots[0].snapshot, world.server.weights)
    assert torch.equal(slots[1].snapshot, world.initial), "worker 1 has not pulled since"
    world.step(0)
    assert torch.equal(slots[1].snapshot, world.initial)
    world.step(1)
    assert torch.equal(slots[1].snapshot, world.server.weights)


@pytest.mark.parametrize("algorithm", ["asgd", "dcasgd-a", "dana"])
def test_the_snapshot_has_the_statistics_that_the_server_has_after_the_push(algorithm: str) -> None:
    world = World(2, algorithm, batchnorm=True)
    world.join()
    border = world.server.layout.num_params
    for worker in (0, 1, 1, 0):
        before = world.server.weights[border:].clone()
        world.step(worker)
        assert not torch.equal(world.server.weights[border:], before)
        snapshot = world.server.slots[worker].snapshot
        assert torch.equal(snapshot[border:], world.server.weights[border:])


def test_a_rule_is_told_the_updates_so_far_and_not_the_pushes() -> None:
    world = World(3)
    told = scripted(world, "apply", "drop", "hold", "hold", "drop", "apply", "apply")
    world.join()
    versions = []
    for worker in (0, 1, 2, 0, 1, 2, 0):
        versions.append(world.server.version)
        world.step(worker)
    assert versions == [0, 1, 1, 1, 2, 2, 3]
    assert [facts.version for facts in told] == versions
    assert [a.record.version for a in world.answers] == versions


def test_weights_that_are_sent_without_a_push_are_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(3, "dana")
    told, send = [], world.server.chain.send

    def note(params: Tensor, snapshot: Tensor, facts: Facts, rate: float | None = None) -> None:
        told.append(facts)
        send(params, snapshot, facts, rate)

    monkeypatch.setattr(world.server.chain, "send", note)
    world.join()
    world.step(0)
    world.server.lose(2)
    world.server.rejoin(2)
    assert [(facts.worker, facts.version) for facts in told] == [(0, 0), (1, 0), (2, 0), (2, 1)]
    assert {(facts.staleness, facts.grad_norm) for facts in told} == {(0, 0.0)}


@pytest.mark.parametrize("verdict", ["drop", "hold"])
def test_a_gradient_that_makes_no_step_moves_neither_parameters_nor_statistics(
    verdict: Verdict,
) -> None:
    world = World(2, "asgd", {"momentum": {"name": "nesterov"}}, batchnorm=True)
    scripted(world, "apply", verdict)
    world.join()
    world.step(0)
    before = world.server.weights.clone()
    state = {name: [v.clone() for v in vs] for name, vs in world.server.chain.state_dict().items()}
    record = world.step(1).record
    assert record.action is {"drop": Action.DROPPED, "hold": Action.HELD}[verdict]
    assert torch.equal(world.server.weights, before)
    for name, vectors in world.server.chain.state_dict().items():
        assert all(map(torch.equal, vectors, state[name])), name
    assert torch.equal(world.server.slots[1].snapshot, before), "it was sent them all the same"


def test_snapshots_share_no_memory_with_the_weights_or_each_other() -> None:
    world = World(2)
    spans = [world.server.weights, *(slot.snapshot for slot in world.server.slots)]
    ranges = sorted((v.data_ptr(), v.data_ptr() + 4 * v.numel()) for v in spans)
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(ranges))


def test_correction_is_not_zero_once_the_weights_move() -> None:
    plain, compensated = World(2, "asgd"), World(2, "dcasgd-c", {"compensation": {"dc_lambda": 1}})
    for world in (plain, compensated):
        world.join()
        world.step(0)
    assert torch.equal(plain.server.weights, compensated.server.weights)
    for world in (plain, compensated):
        world.step(1)
    assert not torch.equal(plain.server.weights, compensated.server.weights)


@pytest.mark.parametrize("workers", [1, 2, 4, 7])
def test_equal_workers_settle_at_staleness_one_less_than_their_number(workers: int) -> None:
    world = World(workers, plan=TicketPlan(50, 2, 0, 2))
    world.run()
    staleness = [answer.record.staleness for answer in world.answers]
    assert staleness[: workers - 1] == list(range(workers - 1))
    assert set(staleness[workers - 1 :]) == {workers - 1}


def test_staleness_sums_to_the_number_in_flight_times_updates() -> None:
    # Exact for any order: what has been pushed plus what is still in flight (algorithms, fact 7).
    world = World(4)
    world.join()
    order = random.Random(5)
    for updates in range(1, 12):
        world.step(order.choice(world.working()))
        pushed = sum(answer.record.staleness for answer in world.answers)
        ages = sum(world.server.version - slot.version for slot in world.server.slots)
        assert pushed + ages == 3 * updates


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("workers", [1, 3, 5])
def test_every_sample_of_every_epoch_is_applied_once(workers: int, ahead: int) -> None:
    world = World(workers, ahead=ahead)
    slow = random.Random(7)
    world.run(lambda working: slow.choices(working, [1 + 10 * w for w in working])[0])
    tickets = [a.record.ticket for a in world.answers if a.record.action is Action.APPLIED]
    assert sorted(tickets) == list(range(world.plan.num_tickets))
    for epoch in range(3):
        seen = Counter(
            int(i) for t in tickets if world.plan.epoch(t) == epoch for i in world.plan.indices(t)
        )
        assert seen == Counter(range(50))
    assert world.server.samples == 150


def test_a_lost_worker_costs_nothing_but_its_unfinished_tickets() -> None:
    world = World(3, ahead=1)
    world.join()
    for worker in (0, 1, 2, 0):
        world.step(worker)
    held = world.server.ledger.held(1)
    assert len(held) == 2
    world.receive(world.server.lose(1))
    while not world.server.finished:
        world.step(random.Random(world.server.version).choice(world.working()))
    tickets = [answer.record.ticket for answer in world.answers]
    assert sorted(tickets) == list(range(world.plan.num_tickets))
    assert {a.record.worker for a in world.answers if a.record.ticket in held} <= {0, 2}


def test_a_worker_lost_last_wakes_those_that_had_nothing_left_to_do() -> None:
    world = World(2, plan=TicketPlan(8, 8, 0, 2))
    world.join()
    world.step(1)
    assert world.server.slots[1].status == "parked"
    assert world.server.lose(0) == [1]
    world.receive([1])
    world.step(1)
    assert world.server.finished
    assert world.server.samples == 16


def test_a_worker_that_is_lost_while_it_waits_is_sent_nothing() -> None:
    world = World(3, plan=TicketPlan(24, 8, 0, 1))
    world.join()
    world.step(1)
    assert world.server.slots[1].status == "parked"
    assert world.server.lose(1) == []
    assert world.server.lose(0) == [], "its ticket is for those that are left"
    assert world.server.slots[1].status == "lost"
    assert world.server.rejoin(1) == [1]


def test_a_worker_that_was_lost_can_come_back_for_fresh_weights_and_work() -> None:
    world = World(2)
    world.join()
    world.server.lose(1)
    world.queues[1].clear()
    for _ in range(3):
        world.step(0)
    assert world.server.rejoin(1) == [1]
    world.receive([1])
    slot = world.server.slots[1]
    assert slot.version == 3
    assert torch.equal(slot.snapshot, world.server.weights)
    assert slot.clock == 3, "nobody waits for what it missed"
    assert world.step(1).record.staleness == 0
    while not world.server.finished:
        world.step(world.working()[0])
    assert world.server.samples == 150


def test_only_a_lost_worker_can_come_back() -> None:
    world = World(2)
    world.join()
    with pytest.raises(ProtocolError, match="worker 1 rejoined, but is working, not lost"):
        world.server.rejoin(1)


def test_halting_stops_everyone_after_what_they_are_at() -> None:
    world = World(3)
    world.join()
    world.step(0)
    assert world.server.halt() == []
    for worker in (0, 1, 2):
        assert world.step(worker).ready == [worker], "each is told once"
    assert world.server.finished
    assert not world.server.complete
    assert world.server.version == 4


def push_of(world: World, worker: int, **changes: object) -> Push:
    slot = world.server.slots[worker]
    push = Push(slot.version, world.queues[worker][0], 8, 1.0, 1.0, torch.ones_like(world.initial))
    return push._replace(**changes)  # type: ignore[arg-type]


def test_a_push_of_another_version_is_a_protocol_error() -> None:
    world = World(2)
    world.join()
    with pytest.raises(ProtocolError, match=r"worker 1 .* pushed version 5, but pulled 0"):
        world.server.push(1, push_of(world, 1, version=5))


def test_a_push_of_somebody_elses_ticket_is_a_protocol_error() -> None:
    world = World(2)
    world.join()
    with pytest.raises(ProtocolError, match=r"worker 1 delivered ticket 0, but holds \[1\]"):
        world.server.push(1, push_of(world, 1, ticket=0))


@pytest.mark.parametrize("samples", [10**6, 0, -8, 2])
def test_a_push_of_other_samples_than_its_tickets_is_a_protocol_error(samples: int) -> None:
    world = World(2)
    world.join()
    before = world.server.state_dict()
    with pytest.raises(
        ProtocolError, match=rf"worker 1 pushed {samples} samples of ticket 1, which has 8"
    ):
        world.server.push(1, push_of(world, 1, samples=samples))
    unchanged(world, before)


@pytest.mark.parametrize("changes", [{"version": 5}, {"ticket": 0}, {"vector": torch.ones(3)}])
def test_a_wrong_push_names_the_worker_and_changes_nothing(changes: dict[str, object]) -> None:
    world = World(2)
    world.join()
    before = world.server.state_dict()
    with pytest.raises(ProtocolError, match="worker 1 "):
        world.server.push(1, push_of(world, 1, **changes))
    unchanged(world, before)


def unchanged(world: World, before: dict[str, object]) -> None:
    """The server is as it was: nothing of the push was counted, applied or granted."""
    now = world.server.state_dict()
    assert torch.equal(now.pop("weights"), before.pop("weights"))  # type: ignore[arg-type]
    for name in ("version", "samples", "ledger", "tally", "nonfinite_in_a_row"):
        assert now[name] == before[name], name
    slots = [(s["version"], s["status"], s["clock"], s["tickets"]) for s in now["slots"]]
    assert slots == [
        (s["version"], s["status"], s["clock"], s["tickets"])
        for s in before["slots"]  # type: ignore[attr-defined]
    ]


def test_a_push_of_a_lost_worker_is_a_protocol_error() -> None:
    world = World(2)
    world.join()
    push = push_of(world, 1)
    world.server.lose(1)
    with pytest.raises(ProtocolError, match=r"worker 1 \(lost\) pushed version 0"):
        world.server.push(1, push)


def test_a_dropped_ticket_goes_to_whoever_is_free() -> None:
    world = World(2, "ringmaster", {"admission": {"threshold": 2}})
    world.join()
    for worker in (0, 0, 1):
        world.step(worker)
    assert world.answers[-1].record.action is Action.DROPPED
    assert world.server.ledger.held(1) == (4,), "not the one it was too slow for"
    world.step(0)
    assert world.server.ledger.held(0) == (1,)


def test_whether_a_push_would_be_dropped_is_known_before_it_comes() -> None:
    world = World(2, "ringmaster", {"admission": {"threshold": 2}})
    world.join()
    world.step(0)
    assert not world.server.drops(1)
    world.step(0)
    assert world.server.drops(1)
    assert not world.server.drops(0)
    scripted(world, "drop")
    assert not world.server.drops(1), "an admission of a user's own has to see the gradient"


def test_a_dropped_ticket_wakes_who_has_nothing_left_to_do() -> None:
    plan = TicketPlan(24, 8, 0, 1)
    world = World(2, "ringmaster", {"admission": {"threshold": 2}}, plan=plan)
    world.join()
    world.step(0)
    world.step(0)
    assert world.server.slots[0].status == "parked"
    answer = world.step(1)
    assert answer.record.action is Action.DROPPED
    assert answer.ready == [0]
    assert world.server.ledger.held(0) == (1,)
    assert world.server.slots[1].status == "parked"
    world.step(0)
    assert world.server.finished


def test_who_is_alone_computes_what_it_dropped_again() -> None:
    world = World(2, "ringmaster", {"admission": {"threshold": 2}}, plan=TicketPlan(24, 8, 0, 1))
    world.join()
    world.step(0)
    world.step(0)
    world.receive(world.server.lose(0))
    assert world.step(1).record.action is Action.DROPPED
    assert world.server.ledger.held(1) == (1,)
    world.step(1)
    assert world.server.finished


@pytest.mark.parametrize(
    ("step_size", "factor"),
    [
        ({"name": "constant"}, 1.0),
        ({"name": "staleness-aware"}, 1.0),
        ({"name": "stability-preserving", "delay": "measured"}, 1.0),
        ({"name": "stability-preserving", "delay": "nominal"}, 0.5),
    ],
)
def test_a_look_ahead_does_not_depend_on_the_staleness_of_the_push_before_it(
    step_size: dict[str, object], factor: float
) -> None:
    world = World(2, "dana", {"step_size": step_size})
    world.join()
    for worker in (0, 0, 0, 1):
        world.step(worker)
    assert world.answers[-1].record.staleness == 3
    (total,) = world.server.chain.state_dict()["momentum.velocity_sum"]
    expected = world.server.weights - total * (factor * LR * 0.9)
    torch.testing.assert_close(world.server.slots[1].snapshot, expected)
    # Who was lost, and has to be sent the same point without a step, is sent it.
    world.server.lose(1)
    world.server.rejoin(1)
    torch.testing.assert_close(world.server.slots[1].snapshot, expected)


def test_a_worker_may_hold_as_many_tickets_as_a_reply_has_room_for_and_no_more() -> None:
    world = World(1, ahead=MAX_AHEAD)
    world.join()
    assert world.queues[0] == list(range(MAX_GRANTS))
    with pytest.raises(ProtocolError, match=f"within 0 and {MAX_AHEAD}, got {MAX_AHEAD + 1}"):
        World(1, ahead=MAX_AHEAD + 1)


def test_pulling_twice_is_a_protocol_error() -> None:
    world = World(1)
    world.join()
    with pytest.raises(ProtocolError, match="pulled twice"):
        world.server.pull(0)


@pytest.mark.parametrize("norm", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_never_reaches_the_weights(norm: float) -> None:
    world = World(2)
    world.join()
    bad = torch.full_like(world.initial, float("nan"))
    answer = world.server.push(0, push_of(world, 0, vector=bad, grad_norm=norm))
    assert answer.record.action is Action.NONFINITE
    assert torch.equal(world.server.weights, world.initial)
    assert world.server.version == 0
    assert world.server.tally.nonfinite == 1
    assert 0 in world.server.slots[0].message.tickets, "the ticket goes out again"


def test_statistics_that_are_not_finite_never_reach_the_weights() -> None:
    world = World(1, batchnorm=True)
    world.join()
    bad = torch.zeros_like(world.initial)
    bad[-1] = float("inf")
    answer = world.server.push(0, push_of(world, 0, vector=bad))
    assert answer.record.action is Action.NONFINITE
    assert torch.equal(world.server.weights, world.initial)


def test_gradients_held_when_the_last_ticket_is_given_up_make_their_step() -> None:
    world = World(1, "rennala", {"admission": {"gradients": 2}}, plan=TicketPlan(16, 8, 0, 1))
    world.join()
    held = world.step(0)
    assert held.record.action is Action.HELD
    gradient = world.learners[0].flat.grad.clone()
    for _ in range(MAX_ATTEMPTS):
        assert torch.equal(world.server.weights, world.initial)
        answer = world.server.push(0, push_of(world, 0, grad_norm=float("nan")))
        world.queues[0] = list(world.server.slots[0].message.tickets)
    assert answer.record.action is Action.NONFINITE
    assert answer.record.stepped
    assert world.server.finished
    assert world.server.version == 1
    assert world.server.tally.applied == 1
    torch.testing.assert_close(world.server.weights, world.initial - LR * gradient)


def test_a_ticket_that_is_never_finite_is_given_up_and_its_samples_counted() -> None:
    world = World(1, plan=TicketPlan(16, 8, 0, 1))
    world.join()
    for _ in range(MAX_ATTEMPTS):
        answer = world.server.push(0, push_of(world, 0, grad_norm=float("nan")))
        world.queues[0] = list(world.server.slots[0].message.tickets)
    assert answer.record.total_samples == 8
    assert world.server.tally.given_up == 1
    world.step(0)
    assert world.server.finished


def test_divergence_ends_the_run_with_a_reason() -> None:
    world = World(1)
    world.join()
    for _ in range(9):
        world.server.push(0, push_of(world, 0, grad_norm=float("nan")))
        world.queues[0] = list(world.server.slots[0].message.tickets)
    told = r"10 gradients in a row .*, while all weights are finite, the largest .* lower lr"
    with pytest.raises(NonFiniteError, match=told):
        world.server.push(0, push_of(world, 0, grad_norm=float("nan")))


@pytest.mark.parametrize("verdict", ["apply", "drop", "hold"])
def test_a_finite_gradient_ends_a_row_of_those_that_are_not(verdict: Verdict) -> None:
    world = World(1)
    scripted(world, verdict)
    world.join()
    for expected in (1, 2):
        world.server.push(0, push_of(world, 0, grad_norm=float("inf")))
        world.queues[0] = list(world.server.slots[0].message.tickets)
        assert world.server.state_dict()["nonfinite_in_a_row"] == expected
    world.step(0)
    assert world.server.state_dict()["nonfinite_in_a_row"] == 0


def test_a_server_says_what_it_was_made_with_and_how_far_it_is() -> None:
    world = World(2, ahead=2, chunk_mb=0.0001)
    server = world.server
    assert (server.ahead, server.num_workers, server.plan) == (2, 2, world.plan)
    assert (server.schedule(0), server.cuts[0]) == (LR, 32)
    world.join()
    record = world.step(0).record
    assert server.epoch == record.epoch == 8 / 50


def test_batchnorm_statistics_average_like_one_process_that_saw_every_batch() -> None:
    world = World(1, batchnorm=True)
    weights = world.run()
    reference = World(1, batchnorm=True)
    model = reference.learners[0].flat.model
    norm = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d))
    norm.momentum = 0.2
    flat = reference.learners[0].flat
    flat.weights.copy_(reference.initial)
    for ticket in range(world.plan.num_tickets):
        learner = reference.learners[0]
        learner.gradient(learner.load(ticket))
        flat.params.sub_(flat.grad[: flat.layout.num_params] * LR)
    torch.testing.assert_close(weights, flat.weights, rtol=1e-5, atol=1e-6)
    assert not torch.equal(norm.running_mean, torch.zeros(7))  # type: ignore[arg-type]


def test_the_latest_statistics_win_under_that_policy() -> None:
    world = World(2, batchnorm=True, policy="latest")
    world.join()
    world.step(0)
    stats = world.server.weights[world.server.layout.num_params :].clone()
    world.step(1)
    mine = world.server.weights[world.server.layout.num_params :]
    assert not torch.equal(stats, mine)
    # Worker 1 began from the initial statistics, so nothing of worker 0's is left.
    norm_rate = 0.2
    assert torch.allclose(world.learners[1].flat.grad[world.server.layout.num_params :], mine)
    assert norm_rate < 1


def test_delay_compensation_leaves_batchnorm_statistics_alone() -> None:
    plain = World(2, "asgd", batchnorm=True)
    strong = World(2, "dcasgd-c", {"compensation": {"dc_lambda": 5.0}}, batchnorm=True)
    for world in (plain, strong):
        world.join()
        world.step(0)
        world.step(1)
    border = plain.server.layout.num_params
    assert not torch.equal(plain.server.weights[:border], strong.server.weights[:border])
    assert torch.equal(plain.server.weights[border:], strong.server.weights[border:])
