"""What the papers prove, where it is cheap to check: through the real server, in float64."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from mpi_dcasgd.rules.algorithms import resolve_rule
from mpi_dcasgd.rules.chain import Chain
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.server.records import Action
from mpi_dcasgd.tools.conformance.servers import RuleServer, may_push


def rule_of(algorithm: str = "asgd", **changes: Any) -> Rule:
    return resolve_rule(algorithm, changes)


@pytest.mark.parametrize("seed", range(3))
def test_virtual_iterates(seed: int) -> None:
    # xhat_t: the weights, less what is in flight but for the gradient dispatched last. Then
    # xhat_{t+1} = xhat_t - lr * g(x_t), as if there were no delay (Mishchenko et al. 2022).
    workers, size, lr = 4, 3, 0.05
    rng = random.Random(seed)
    noise = torch.Generator().manual_seed(seed)
    start = torch.randn(size, generator=noise, dtype=torch.float64)
    curvature = torch.tensor([0.1, 0.7, 2.0], dtype=torch.float64)

    def grad(weights: Tensor) -> Tensor:
        return curvature * weights + torch.randn(size, generator=noise, dtype=torch.float64)

    server = RuleServer(rule_of(), start.clone(), workers, lr)
    flying = [grad(server.pull(worker)) for worker in range(workers)]
    newest = workers - 1
    virtual = None
    for _ in range(60):
        others = sum(flying[w] for w in range(workers) if w != newest)
        now = server.weights - lr * others
        if virtual is not None:
            torch.testing.assert_close(now, virtual, rtol=0, atol=1e-13)
        virtual = now - lr * flying[newest]
        newest = rng.randrange(workers)
        server.push(newest, flying[newest])
        flying[newest] = grad(server.pull(newest))


def by_finish_time(durations: list[float]) -> Iterator[int]:
    """Which worker delivers next; ties go to the lower number."""
    heap = [(duration, worker) for worker, duration in enumerate(durations)]
    heapq.heapify(heap)
    while True:
        time, worker = heap[0]
        yield worker
        heapq.heapreplace(heap, (time + durations[worker], worker))


def error_after(algorithm: str, durations: list[float], lr: float, updates: int = 1500) -> float:
    """Distance from the minimum of a noisy quadratic, over its distance at the start."""
    curvature = torch.linspace(0.05, 1.0, 40, dtype=torch.float64)
    noise = torch.Generator().manual_seed(5)
    server = RuleServer(rule_of(algorithm), torch.ones(40, dtype=torch.float64), len(durations), lr)
    held = [server.pull(worker).clone() for worker in range(len(durations))]
    for _, worker in zip(range(updates), by_finish_time(durations), strict=False):
        grad = curvature * held[worker]
        server.push(worker, grad + 0.02 * torch.randn(40, generator=noise, dtype=torch.float64))
        held[worker] = server.pull(worker).clone()
    return float(server.weights.norm()) / 40**0.5


def test_one_slow_worker_does_not_hurt_delay_adaptive_steps_but_a_small_constant_rate_does() -> (
    None
):
    equal = [1.0] * 8
    one_slow = [1.0] * 7 + [100.0]
    lr, slowest = 0.1, 700
    without = error_after("adaptive-asgd", equal, lr)
    assert error_after("adaptive-asgd", one_slow, lr) < 1.2 * without
    # The rate that is safe for the largest delay, as constant-rate theory asks for.
    tuned = lr * 8 / slowest
    assert error_after("asgd", equal, lr) < 1.2 * without
    assert error_after("asgd", one_slow, tuned) > 5 * without


def test_delay_adaptive_is_concurrency_aware_with_all_workers() -> None:
    one_slow = [1.0, 1.3, 40.0]
    adaptive = error_after("adaptive-asgd", one_slow, 0.2, 200)
    assert adaptive == error_after("concurrency-asgd", one_slow, 0.2, 200)
    assert adaptive != error_after("asgd", one_slow, 0.2, 200)


def test_stationary_variance_with_a_delay_of_one() -> None:
    # Unit noise, curvature 1, lr 0.3: closed forms, by 20000 worlds side by side.
    k, worlds = 0.3, 20000
    expected = {
        1: k / (2 - k),
        2: k**2 * (1 + k) / ((1 - k) * k * (2 + k)),
    }
    for workers, variance in expected.items():
        noise = torch.Generator().manual_seed(workers)
        server = RuleServer(rule_of(), torch.zeros(worlds, dtype=torch.float64), workers, k)
        for step in range(60):
            worker = step % workers
            randn = torch.randn(worlds, generator=noise, dtype=torch.float64)
            server.push(worker, server.pull(worker) + randn)
        assert float(server.weights.var()) == pytest.approx(variance, rel=0.04)


def random_run(server: RuleServer, workers: int, pushes: int, seed: int) -> list[Tensor]:
    """What the pushing worker is sent each time; gradients depend on it and on the seed."""
    rng, noise = random.Random(seed), torch.Generator().manual_seed(seed)
    for worker in range(workers):
        server.pull(worker)
    sent = []
    for _ in range(pushes):
        worker = rng.randrange(workers)
        weights = server.pull(worker)
        grad = weights * 0.7 + torch.randn(weights.shape, generator=noise, dtype=torch.float64)
        server.push(worker, grad)
        sent.append(server.pull(worker).clone())
    return sent


def test_dana_slim_is_dana_zero_in_terms_of_what_is_sent() -> None:
    start = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    zero, slim = (
        random_run(RuleServer(rule_of(name), start.clone(), 5, 0.03), 5, 200, 1)
        for name in ("dana", "dana-slim")
    )
    torch.testing.assert_close(torch.stack(slim), torch.stack(zero), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["dana", "dana-slim", "nesterov"])
def test_one_worker_is_sent_what_nesterov_sgd_computes_at(name: str) -> None:
    rule = rule_of(momentum={"name": name, "momentum": 0.9})
    against_torch(rule, lambda p: torch.optim.SGD(p, lr=0.03, momentum=0.9, nesterov=True), "sent")


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_is_pytorchs(decay: float) -> None:
    rule = rule_of(momentum="adam", weight_decay={"rate": decay, "place": "decoupled"})
    against_torch(rule, lambda p: torch.optim.AdamW(p, lr=0.03, weight_decay=decay), "weights")
    if decay == 0.0:
        against_torch(rule, lambda p: torch.optim.Adam(p, lr=0.03), "weights")


def test_decay_outside_with_adam_is_pytorchs_adam_with_l2() -> None:
    rule = rule_of(momentum="adam", weight_decay={"rate": 0.1})
    against_torch(rule, lambda p: torch.optim.Adam(p, lr=0.03, weight_decay=0.1), "weights")


@pytest.mark.parametrize("name", ["heavy-ball", "per-worker"])
def test_one_worker_with_momentum_is_pytorchs_sgd(name: str) -> None:
    rule = rule_of(momentum={"name": name, "momentum": 0.8}, weight_decay={"rate": 0.05})
    against_torch(
        rule, lambda p: torch.optim.SGD(p, lr=0.03, momentum=0.8, weight_decay=0.05), "weights"
    )


def against_torch(
    rule: Rule, optimizer: Callable[[list[Tensor]], torch.optim.Optimizer], what: str
) -> None:
    start = torch.linspace(-1, 2, 7, dtype=torch.float64)
    theirs = torch.nn.Parameter(start.clone())
    step = optimizer([theirs])
    server = RuleServer(rule, start.clone(), 1, 0.03)
    noise = torch.Generator().manual_seed(0)
    for _ in range(50):
        grad = server.pull(0) * 0.5 + torch.randn(7, generator=noise, dtype=torch.float64)
        theirs.grad = grad.clone()
        step.step()
        server.push(0, grad)
        ours = server.pull(0) if what == "sent" else server.weights
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("threshold", [1, 2, 3, 7])
def test_ringmaster_applies_staleness_up_to_one_less_than_its_threshold(threshold: int) -> None:
    rule = rule_of("ringmaster", admission={"threshold": threshold})
    records = unequal_run(RuleServer(rule, torch.ones(2), 6, 0.01), 6, 400)
    applied = [r.staleness for r in records if r.action is Action.APPLIED]
    dropped = [r.staleness for r in records if r.action is Action.DROPPED]
    assert max(applied) == threshold - 1
    assert min(dropped) == threshold


def unequal_run(server: RuleServer, workers: int, pushes: int) -> list[Any]:
    rng = random.Random(3)
    for worker in range(workers):
        server.pull(worker)
    records = []
    for _ in range(pushes):
        able = [worker for worker in range(workers) if may_push(server, worker)]
        worker = rng.choices(able, [1.0 + worker**2 for worker in able])[0]
        records.append(server.push(worker, torch.ones(2) * 0.1))
    return records


def test_ringmaster_with_a_threshold_of_one_is_sequential_sgd() -> None:
    rule = rule_of("ringmaster", admission={"threshold": 1})
    server = RuleServer(rule, torch.ones(1, dtype=torch.float64), 3, 0.1)
    for worker in range(3):
        server.pull(worker)
    path = []
    for worker in (2, 0, 0, 1, 1, 2, 0):
        if server.push(worker, server.pull(worker).clone()).action is Action.APPLIED:
            path.append(float(server.weights))
    # A worker's first push after another's is stale and is dropped; its second is fresh.
    assert path == pytest.approx([0.9, 0.81, 0.729])


def test_rennala_is_minibatch_sgd() -> None:
    torch.manual_seed(1)
    inputs, targets = torch.randn(64, 3, dtype=torch.float64), torch.randn(64, dtype=torch.float64)

    def grad(weights: Tensor, samples: slice) -> Tensor:
        x, y = inputs[samples], targets[samples]
        return x.T @ (x @ weights - y) / len(y)

    server = RuleServer(
        rule_of("rennala", admission={"gradients": 4}), torch.zeros(3, dtype=torch.float64), 3, 0.1
    )
    minibatch = torch.zeros(3, dtype=torch.float64)
    for worker in range(3):
        server.pull(worker)
    for step in range(4):
        # Whoever is first delivers more; nobody is stale, as all have delivered since.
        for part, worker in enumerate((0, 1, 2, 0)):
            samples = slice(16 * step + 4 * part, 16 * step + 4 * part + 4)
            record = server.push(worker, grad(server.pull(worker), samples))
            if record.action is Action.DROPPED:
                server.push(worker, grad(server.pull(worker), samples))
        minibatch = minibatch - 0.1 * grad(minibatch, slice(16 * step, 16 * step + 16))
        torch.testing.assert_close(server.weights, minibatch, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("bound", [0, 1, 3])
@pytest.mark.parametrize("workers", [2, 5])
def test_ssp_bounds_the_lead_and_the_staleness(workers: int, bound: int) -> None:
    server = RuleServer(rule_of("ssp", admission={"bound": bound}), torch.ones(2), workers, 0.01)
    rng = random.Random(4)
    for worker in range(workers):
        server.pull(worker)
    worst = lead = 0
    for _ in range(600):
        able = [worker for worker in range(workers) if may_push(server, worker)]
        assert able, "somebody can always go on"
        slots = server.server.slots
        clocks = [slot.clock for slot in slots]
        lead = max(lead, *(clocks[worker] - min(clocks) for worker in able))
        worker = rng.choices(able, [1.0 + 20 * worker for worker in able])[0]
        worst = max(worst, server.push(worker, torch.ones(2)).staleness)
    assert lead == bound
    assert worst <= (2 * bound + 1) * (workers - 1)
    assert worst >= workers - 1


def compensated(rule: Rule, grad: float, params: float, snapshot: float) -> float:
    """The direction that the rule makes of a gradient."""
    weights = torch.tensor([params], dtype=torch.float64)
    sent = torch.tensor([snapshot], dtype=torch.float64)
    facts = Facts(1.0, 1.0, 1, 1, 0, 2, abs(grad))
    Chain(rule, weights, 2).apply(weights, torch.tensor([grad], dtype=torch.float64), sent, facts)
    return params - weights.item()


@pytest.mark.parametrize(("curvature", "params", "snapshot"), [(3.0, 0.4, 0.5), (0.2, -1.0, 2.0)])
def test_compensation_of_a_quadratic_is_exact_at_the_right_lambda(
    curvature: float, params: float, snapshot: float
) -> None:
    stale, fresh = curvature * snapshot, curvature * params
    strengths = {
        "dc-constant": {"dc_lambda": 1 / (curvature * snapshot**2)},
        "dc-adaptive": {"dc_lambda": 1 / abs(snapshot), "decay": 0.0, "eps": 1e-300},
    }
    for name, settings in strengths.items():
        rule = rule_of(compensation={"name": name, **settings})
        assert compensated(rule, stale, params, snapshot) == pytest.approx(fresh, rel=1e-12)


def test_compensation_of_a_log_likelihood_is_of_second_order() -> None:
    # f = -log w, lambda = 1: D^2 / (w_bak^2 w) is left, against D / (w_bak w) without compensation.
    rule = rule_of(compensation={"name": "dc-constant", "dc_lambda": 1.0})
    errors = [
        abs(compensated(rule, -1 / 2.0, 2.0 + drift, 2.0) - -1 / (2.0 + drift))
        for drift in (0.01, 0.005)
    ]
    for error, drift in zip(errors, (0.01, 0.005), strict=True):
        assert error == pytest.approx(drift**2 / (2.0**2 * (2.0 + drift)), rel=1e-9)


def test_compensation_is_the_hessian_in_expectation_over_the_models_own_labels() -> None:
    # Logistic loss log(1 + exp(-y w)): E[g g] over y ~ model is the second derivative.
    snapshot, drift = 0.8, 0.1
    rule = rule_of(compensation={"name": "dc-constant", "dc_lambda": 1.0})
    probability = 1 / (1 + math.exp(-snapshot))
    correction = sum(
        p * (compensated(rule, g, snapshot + drift, snapshot) - g)
        for p, g in ((probability, probability - 1), (1 - probability, probability))
    )
    assert correction == pytest.approx(probability * (1 - probability) * drift, rel=1e-12)


def test_the_gap_counts_the_typical_steps_between() -> None:
    # Constant gradients without momentum: tau equal steps away the gradient counts 1 / (1 + tau).
    rule = rule_of("gap-aware", momentum={"momentum": 0.0, "decay": 0.0, "eps": 1e-300})
    server = RuleServer(rule, torch.zeros(1, dtype=torch.float64), 2, 0.1)
    server.pull(0)
    server.pull(1)
    one = torch.ones(1, dtype=torch.float64)
    for _ in range(4):
        server.push(0, one)
    before = server.weights.clone()
    server.push(1, one)
    assert float(before - server.weights) == pytest.approx(0.1 / (1 + 4))


def test_without_a_learning_rate_there_is_no_gap() -> None:
    weights, sent = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    chain = Chain(rule_of("gap-aware"), weights, 1)
    chain.apply(weights, torch.full_like(weights, 2.0), sent, Facts(0.0, 0.0, 1, 1, 0, 1, 2.0))
    assert chain.state_dict()["momentum.velocity"][0].item() == 2.0


def test_a_look_ahead_takes_no_more_of_a_step_size_than_is_the_same_for_every_push() -> None:
    facts = Facts(
        lr=0.1, lr_max=0.1, staleness=30, worker=0, num_workers=5, grad_norm=1.0, version=40
    )
    nominal, measured = (
        rule_of("stable-asgd", step_size={"delay": delay}).step_size
        for delay in ("nominal", "measured")
    )
    assert nominal.lasting(facts) == nominal.factor(facts) < 1.0
    assert measured.factor(facts) < nominal.factor(facts)
    assert measured.lasting(facts) == 1.0


@pytest.mark.parametrize(
    ("changes", "years"),
    [
        ({"rate": 0.0, "place": "decoupled", "on": "conv-and-linear"}, []),
        ({"rate": 0.1}, []),
        ({"rate": 0.1, "place": "decoupled"}, [2019]),
        ({"rate": 0.1, "on": "conv-and-linear"}, [2020]),
        ({"rate": 0.1, "place": "decoupled", "on": "conv-and-linear"}, [2019, 2020]),
    ],
)
def test_weight_decay_names_the_papers_of_its_kind(changes: Any, years: list[int]) -> None:
    part = rule_of(weight_decay=changes).weight_decay
    assert [reference.year for reference in part.references()] == years
