"""The rules against numbers worked out by hand on f(w) = w^2 / 2 (so that the gradient is w).

w_0 = 1, lr = 0.1, two workers that both pull w_0 and then push in the order 0, 1, 0, 1, ...
"""

from __future__ import annotations

import pytest
import torch

from mpi_dcasgd.rules.algorithms import resolve_rule
from mpi_dcasgd.rules.chain import Chain, Rule
from mpi_dcasgd.rules.part import Facts

ASGD = [0.9, 0.8, 0.71, 0.63, 0.559, 0.496]
DC_CONSTANT = [0.9, 0.805, 0.7188475, 0.641138948691, 0.571261961246, 0.508584245135]
DC_ADAPTIVE_PER_WORKER = [
    0.9,
    0.889442629657,
    0.805208026264,
    0.761434615224,
    0.697578366994,
    0.643590726090,
]
DC_ADAPTIVE_GLOBAL = [
    0.9,
    0.864051228675,
    0.790012559254,
    0.730923189995,
    0.668986782452,
    0.610540044722,
]


def trajectory(rule: Rule, steps: int = 6) -> list[float]:
    """w after each of the pushes described above, in float64."""
    params = torch.ones(1, dtype=torch.float64)
    snapshots = [params.clone(), params.clone()]
    versions = [0, 0]
    chain = Chain(rule, params, num_workers=2)
    path = []
    for version in range(steps):
        worker = version % 2
        facts = Facts(0.1, 0.1, version - versions[worker], version, worker, 2, 1.0)
        chain.apply(params, snapshots[worker].clone(), snapshots[worker], facts)
        versions[worker] = version + 1
        path.append(params.item())
    return path


@pytest.mark.parametrize(
    ("algorithm", "changes", "expected"),
    [
        ("asgd", {}, ASGD),
        ("dcasgd-c", {"dc_lambda": 0.5}, DC_CONSTANT),
        ("dcasgd-c", {"dc_lambda": 0.0}, ASGD),
        ("dcasgd-a", {"mean_square": "per_worker"}, DC_ADAPTIVE_PER_WORKER),
        ("dcasgd-a", {}, DC_ADAPTIVE_GLOBAL),
    ],
)
def test_trajectory(algorithm: str, changes: dict[str, float], expected: list[float]) -> None:
    rule = resolve_rule(algorithm, {"compensation": changes} if changes else None)
    assert trajectory(rule) == pytest.approx(expected, abs=1e-12)


def test_first_push_of_each_worker_is_compensated_from_the_initial_weights() -> None:
    # A backup that began at zero would give 0.85 for worker 1's first push.
    path = trajectory(resolve_rule("dcasgd-c", {"compensation": {"dc_lambda": 0.5}}), steps=2)
    assert path[1] == pytest.approx(0.9 - 0.1 * (1 + 0.5 * (0.9 - 1.0)), abs=1e-15)


def test_adaptive_without_memory_is_lambda_times_absolute_gradient() -> None:
    adaptive = {"decay": 0.0, "eps": 1e-300, "dc_lambda": 0.7}
    params = torch.tensor([0.3, -0.2], dtype=torch.float64)
    snapshot = torch.tensor([0.5, 0.1], dtype=torch.float64)
    grad = torch.tensor([-2.0, 0.25], dtype=torch.float64)
    expected = params - 0.1 * (grad + 0.7 * grad.abs() * (params - snapshot))
    chain = Chain(resolve_rule("dcasgd-a", {"compensation": adaptive}), params, 1)
    chain.apply(params, grad, snapshot, Facts(0.1, 0.1, 3, 3, 0, 1, 1.0))
    torch.testing.assert_close(params, expected, rtol=1e-14, atol=0)


def test_a_square_that_overflows_does_not_turn_zero_drift_into_nan() -> None:
    params = torch.tensor([1.0])
    chain = Chain(resolve_rule("dcasgd-c"), params, 1)
    chain.apply(params, torch.tensor([3e19]), params.clone(), Facts(0.0, 0.0, 0, 0, 0, 1, 3e19))
    assert torch.isfinite(params).all()


def test_without_strength_there_is_no_correction_however_large_the_gradient() -> None:
    params, gradient = torch.tensor([1.0]), torch.tensor([3e20])
    chain = Chain(resolve_rule("dcasgd-c", {"compensation": {"dc_lambda": 0.0}}), params, 1)
    chain.apply(params, gradient, torch.tensor([1.1]), Facts(0.1, 0.1, 1, 1, 0, 1, 3e20))
    assert params.item() == pytest.approx(-3e19, rel=1e-6)


def test_weight_decay_acts_outside_the_square_with_the_weights_of_now() -> None:
    changes = {"compensation": {"dc_lambda": 0.5}, "weight_decay": {"rate": 0.01}}
    params = torch.tensor([2.0], dtype=torch.float64)
    snapshot = torch.tensor([3.0], dtype=torch.float64)
    grad = torch.tensor([0.4], dtype=torch.float64)
    chain = Chain(resolve_rule("dcasgd-c", changes), params, 1)
    chain.apply(params, grad, snapshot, Facts(0.1, 0.1, 1, 1, 0, 1, 0.4))
    expected = 2.0 - 0.1 * (0.4 + 0.01 * 2.0 + 0.5 * 0.4 * 0.4 * (2.0 - 3.0))
    assert params.item() == pytest.approx(expected, abs=1e-15)


def test_heavy_ball_equals_pytorch_sgd() -> None:
    torch.manual_seed(0)
    ours = torch.randn(50)
    theirs = torch.nn.Parameter(ours.clone())
    optimizer = torch.optim.SGD([theirs], lr=0.05, momentum=0.9, dampening=0.3, weight_decay=0.01)
    rule = resolve_rule(
        "asgd",
        {
            "momentum": {"name": "heavy-ball", "momentum": 0.9, "dampening": 0.3},
            "weight_decay": {"rate": 0.01},
        },
    )
    chain = Chain(rule, ours, 1)
    for step in range(20):
        grad = torch.randn(50)
        if step == 0:
            # PyTorch would take the first direction whole; ours dampens it like any other.
            optimizer.state[theirs]["momentum_buffer"] = torch.zeros(50)
        theirs.grad = grad.clone()
        optimizer.step()
        chain.apply(ours, grad, ours.clone(), Facts(0.05, 0.05, 0, step, 0, 1, 1.0))
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)
