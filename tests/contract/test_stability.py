"""Stability with constant delay: the largest rate, found by bisection, against closed forms.

The largest stable learning rate times the curvature of a quadratic, through the real chain.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mpi_dcasgd.rules.algorithms import resolve_rule
from mpi_dcasgd.rules.chain import Chain
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.tools.conformance.servers import RuleServer

DELAYS = [0, 1, 2, 4, 8, 16, 32]

# lr * curvature at which constant delay becomes unstable, without momentum.
THRESHOLD = {
    0: 2.0,
    1: 1.0,
    2: 0.6180339887,
    3: 0.4450418679,
    4: 0.3472963553,
    8: 0.1845367189,
    16: 0.0951638316,
    32: 0.0483274905,
}

# The same times (1 - m), by delay and for m = 0.5 and 0.9.
HEAVY_BALL = {
    1: (0.5, 0.1),
    2: (0.280776, 0.051249),
    4: (0.155851, 0.026498),
    8: (0.085052, 0.013942),
}
SHIFTED = {
    1: (0.75, 0.19),
    2: (0.411438, 0.096629),
    4: (0.215864, 0.048729),
    8: (0.110603, 0.024469),
}


def rule_of(algorithm: str = "asgd", **changes: Any) -> Rule:
    return resolve_rule(algorithm, changes)


def round_robin_map(rule: Rule, delay: int, curvature: float) -> NDArray[np.float64]:
    """The linear map that one round of delay + 1 workers makes of snapshots and state.

    Gradients are ``curvature * weights`` and the rate is 1. Element j of every vector is a world
    of its own that begins with the j-th unit vector of the state, so that one round through the
    real chain gives all columns.
    """
    workers = delay + 1
    copies = rule.state_vectors(workers)
    size = workers + copies
    units = list(torch.eye(size, dtype=torch.float64))
    snapshots = units[:workers]
    # Worker 0 is the next to push; the last worker was the last to push and holds the weights.
    params = snapshots[-1].clone()
    chain = Chain(rule, params, workers)
    vectors = [v for vs in chain.state_dict().values() for v in vs]
    for vector, unit in zip(vectors, units[workers:], strict=True):
        vector.copy_(unit)
    for worker in range(workers):
        facts = Facts(1.0, 1.0, delay, 10**6 + worker, worker, workers, 1.0)
        chain.apply(params, curvature * snapshots[worker], snapshots[worker], facts)
    return torch.stack([*snapshots, *vectors]).numpy()


def growth(rule: Rule, delay: int, curvature: float) -> float:
    """By how much a round multiplies the largest mode; above 1 is unstable."""
    return float(np.abs(np.linalg.eigvals(round_robin_map(rule, delay, curvature))).max())


def largest_stable(rule: Rule, delay: int) -> float:
    """Bisection on lr * curvature."""
    stable, unstable = 0.0, 64.0
    while unstable - stable > 1e-5 * unstable:
        middle = (stable + unstable) / 2
        stable, unstable = (
            (middle, unstable) if growth(rule, delay, middle) < 1 else (stable, middle)
        )
    return stable


@pytest.mark.parametrize("delay", DELAYS)
def test_asgd_is_stable_up_to_twice_the_sine(delay: int) -> None:
    closed_form = 2 * math.sin(math.pi / (2 * (2 * delay + 1)))
    assert closed_form == pytest.approx(THRESHOLD[delay], abs=1e-9)
    assert largest_stable(rule_of(), delay) == pytest.approx(closed_form, rel=1e-3)


@pytest.mark.parametrize("delay", DELAYS)
def test_stable_asgd_keeps_the_threshold_that_there_is_without_delay(delay: int) -> None:
    assert largest_stable(rule_of("stable-asgd"), delay) == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize("delay", DELAYS[1:])
def test_the_asymptotic_step_is_a_little_too_large_and_less_so_with_delay(delay: int) -> None:
    rule = rule_of("stable-asgd", step_size={"form": "asymptotic"})
    ratio = 2.0 / largest_stable(rule, delay)
    assert 1.0 < ratio < 1.0 + 0.6 / delay


def test_staleness_aware_is_exactly_marginal_at_a_delay_of_one() -> None:
    rule = rule_of("sa-asgd")
    assert largest_stable(rule, 1) == pytest.approx(1.0, rel=1e-3)
    assert largest_stable(rule, 32) == pytest.approx(math.pi / 2, rel=0.02)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("delay", [1, 2, 4, 8])
@pytest.mark.parametrize(("part", "table"), [("heavy-ball", HEAVY_BALL), ("shifted", SHIFTED)])
def test_threshold_with_momentum(
    part: str, table: dict[int, tuple[float, float]], delay: int, which: int
) -> None:
    momentum = (0.5, 0.9)[which]
    settings = {"name": part, "momentum": momentum}
    if part == "heavy-ball":
        settings["dampening"] = momentum
    found = largest_stable(rule_of(momentum=settings), delay) * (1 - momentum)
    assert found == pytest.approx(table[delay][which], rel=1e-3)


@pytest.mark.parametrize("delay", [0, *DELAYS[3:]])
@pytest.mark.parametrize("momentum", [0.3, 0.9])
def test_threshold_with_momentum_agrees_with_the_characteristic_polynomial(
    momentum: float, delay: int
) -> None:
    def heavy_ball(k: float) -> list[float]:
        # z^(tau+1) - (1 + m) z^tau + m z^(tau-1) + k
        powers = [0.0] * (max(delay + 1, 2) + 1)
        shift = max(1 - delay, 0)
        for power, factor in ((delay + 1, 1.0), (delay, -1 - momentum), (delay - 1, momentum)):
            powers[-1 - power - shift] += factor
        powers[-1 - shift] += k
        return powers

    def shifted(k: float) -> list[float]:
        # z^(tau+2) - z^(tau+1) + (k - m) z + m
        powers = [0.0] * (delay + 3)
        for power, factor in (
            (delay + 2, 1.0),
            (delay + 1, -1.0),
            (1, k - momentum),
            (0, momentum),
        ):
            powers[-1 - power] += factor
        return powers

    for name, polynomial in (("heavy-ball", heavy_ball), ("shifted", shifted)):
        settings: dict[str, Any] = {"name": name, "momentum": momentum}
        if name == "heavy-ball":
            settings["dampening"] = momentum
        found = largest_stable(rule_of(momentum=settings), delay) * (1 - momentum)
        for k, stable in ((0.99 * found, True), (1.01 * found, False)):
            assert (np.abs(np.roots(polynomial(k))).max() < 1) == stable


def test_momentum_lowers_the_threshold_and_shifted_momentum_raises_it() -> None:
    none = largest_stable(rule_of(), 8)
    by_m = {
        part: [
            largest_stable(rule_of(momentum={"name": part, "momentum": m, **more}), 8)
            for m, more in ((0.5, dampened(part, 0.5)), (0.9, dampened(part, 0.9)))
        ]
        for part in ("heavy-ball", "shifted")
    }
    assert none == pytest.approx(0.184537, rel=1e-3)
    assert by_m["heavy-ball"] == pytest.approx([0.170104, 0.139420], rel=1e-3)
    assert by_m["shifted"] == pytest.approx([0.221207, 0.244694], rel=1e-3)


def dampened(part: str, momentum: float) -> dict[str, float]:
    return {"dampening": momentum} if part == "heavy-ball" else {}


@pytest.mark.parametrize("compensation", ["dc-constant", "dc-adaptive"])
def test_compensation_does_not_change_the_linear_threshold(compensation: str) -> None:
    # Two worlds side by side: 3 % below and 3 % above. Its term is of second order in w, so it
    # cannot help near the minimum, but it stops the growth that plain ASGD has no end to.
    delay, workers = 4, 5
    curvature = THRESHOLD[delay] * torch.tensor([0.97, 1.03], dtype=torch.float64)
    start = torch.full((2,), 1e-3, dtype=torch.float64)
    rule = rule_of(compensation={"name": compensation, "dc_lambda": 0.5})
    ends = []
    for one in (rule, rule_of()):
        server = RuleServer(one, start.clone(), workers, 1.0)
        for step in range(5000):
            worker = step % workers
            server.push(worker, curvature * server.pull(worker))
        tail = []
        for step in range(5000, 5050):
            worker = step % workers
            server.push(worker, curvature * server.pull(worker))
            tail.append(server.weights.clone())
        ends.append(torch.stack(tail).abs().max(dim=0).values)
    assert ends[0][0] < 1e-12
    assert 0.005 < ends[0][1] < 1.0
    assert ends[1][1] > 10.0
