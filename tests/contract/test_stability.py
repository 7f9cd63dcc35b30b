"""Stability with constant delay: the largest rate, found by bisection, against closed forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.rules.algorithms import resolve_rule
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.tools import stable_rates as stability
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


def largest_stable(rule: Rule, delay: int) -> float:
    return stability.largest_stable(rule, delay + 1)


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


@pytest.mark.parametrize("momentum", [0.9, 0.99, 0.999])
def test_no_rate_is_too_high_to_be_found(momentum: float) -> None:
    # Heavy-ball's closed form without delay.
    settings = {"name": "heavy-ball", "momentum": momentum, "dampening": momentum}
    expected = 2 * (1 + momentum) / (1 - momentum)
    assert largest_stable(rule_of(momentum=settings), 0) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("workers", [1, 2, 5, 9])
def test_dana_keeps_sums_that_never_come_apart_and_is_as_stable_as_its_slim_form(
    workers: int,
) -> None:
    rates = [stability.largest_stable(rule_of(name), workers) for name in ("dana", "dana-slim")]
    assert rates[0] == pytest.approx(rates[1], rel=1e-4)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("asgd", {}),
        ("dcasgd-a", {}),
        ("asgd", {"momentum": {"name": "nesterov", "momentum": 0.7}}),
        ("asgd", {"momentum": {"name": "per-worker", "momentum": 0.7}}),
        ("dana", {}),
        ("sa-asgd", {}),
    ],
)
def test_training_shrinks_below_the_rate_and_grows_above_it(
    name: str, changes: dict[str, Any]
) -> None:
    """The servers themselves, on two quadratics, from a start that is not a mode of anything."""
    workers = 4
    rule = rule_of(name, **changes)
    rate = stability.largest_stable(rule, workers)
    curvature = rate * torch.tensor([0.97, 1.03], dtype=torch.float64)
    start = torch.full((2,), 1e-12, dtype=torch.float64)
    server = RuleServer(rule, start.clone(), workers, 1.0)
    for step in range(3000):
        worker = step % workers
        server.push(worker, curvature * server.pull(worker))
    below, above = server.weights.abs().tolist()
    assert below < 1e-14
    assert above > 1e-11


def test_rates_are_told_beside_that_of_one_worker_and_without_weight_decay() -> None:
    rule = rule_of(weight_decay={"name": "l2", "rate": 0.1})
    found = stability.stable_rates(rule, [2, 4])
    assert [one.workers for one in found] == [2, 4]
    assert [one.rate for one in found] == pytest.approx([1.0, 0.4450419], rel=1e-4)
    assert [one.factor for one in found] == pytest.approx([0.5, 0.2225209], rel=1e-4)


@pytest.mark.parametrize(
    ("name", "changes", "why"),
    [
        ("gap-aware", {}, "not in proportion"),
        ("asgd", {"momentum": "adam"}, "not in proportion"),
        ("rennala", {}, "applies the mean of many"),
        ("ringmaster", {"admission": {"name": "threshold", "threshold": 2}}, "with 4 workers"),
        (
            "concurrency-asgd",
            {"step_size": {"concurrency": 2, "beyond": "drop"}},
            "3 updates stale, change nothing",
        ),
    ],
)
def test_what_has_no_stable_rate_says_why(name: str, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}: .*\n.*{why}.*mpi-dcasgd simulate"):
        stability.stable_rates(rule_of(name, **changes), [1, 4], name)
