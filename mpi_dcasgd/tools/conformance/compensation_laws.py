"""Laws of delay compensation: what a backup of its own for each worker comes to.

Each compares a target with the same rule without its compensation, at pushes where the two must
be the same, or must not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.tools.conformance.driving import (
    LR,
    SIZE,
    drive,
    noisy_bowl,
    random_grads,
    random_picks,
    start_weights,
    steps_alone,
)
from mpi_dcasgd.tools.conformance.law import (
    DoesNotApply,
    Law,
    require,
    require_all_equal,
    require_equal,
)
from mpi_dcasgd.tools.conformance.servers import MakeServer
from mpi_dcasgd.tools.conformance.targets import Target

NOTHING_LEFT = "it has no compensation, or nobody can say what it is without"


def _fresh_is_plain(target: Target) -> None:
    """A gradient computed at the weights of now was treated as if it were stale."""
    if target.plain is None:
        raise DoesNotApply(NOTHING_LEFT)
    grads = random_grads(10)
    mine = steps_alone(target.make(start_weights(), 1, LR), 0, grads)
    plain = steps_alone(target.plain(start_weights(), 1, LR), 0, grads)
    # First pushes have a law of their own.
    require_all_equal(mine[1:], plain[1:], "one worker alone moves the weights by")


def _first_from_initial_weights(target: Target) -> None:
    """A worker's first gradient was compensated from something else than w_0."""
    if target.uncompensated is None:
        raise DoesNotApply(NOTHING_LEFT)
    for worker in range(3):
        mine = _first(target.make, start_weights(), [worker])
        plain = _first(target.uncompensated, start_weights(), [worker])
        require_equal(mine, plain, f"first push of all, by worker {worker}")
    if target.shifts:
        mine = _first(target.make, start_weights(), [0, 1])
        shifted = _first(target.make, start_weights() + 4.0, [0, 1])
        require_equal(shifted - 4.0, mine, "worker 1's first push, with 4 added to w_0")


def _first(make: MakeServer, weights: Tensor, pushers: Sequence[int]) -> Tensor:
    server = make(weights, 3, LR)
    for worker in range(3):
        server.pull(worker)
    for worker, grad in zip(pushers, random_grads(3), strict=False):
        server.push(worker, grad)
        pulled = server.pull(worker).clone()
    return pulled


def _own_backup(target: Target) -> None:
    """The effect of a worker's gradient depended on the pulls of other workers."""
    if target.uncompensated is None:
        raise DoesNotApply(NOTHING_LEFT)
    results = []
    for other_pulls in (False, True):
        server = target.make(start_weights(), 2, LR)
        server.pull(0)
        server.pull(1)
        grads = random_grads(2)
        server.push(1, grads[0])
        if other_pulls:
            server.pull(1)
        server.push(0, grads[1])
        results.append(server.pull(0).clone())
    require_equal(results[1], results[0], "worker 0's push, after worker 1 has pulled,")
    mine = _latecomer(target.make)
    plain = _latecomer(target.uncompensated)
    require_equal(mine, plain, "a fresh push of worker 1, after worker 0's, moves the weights by")


def _latecomer(make: MakeServer) -> Tensor:
    server = make(start_weights(), 2, LR)
    steps_alone(server, 0, random_grads(2, seed=4))
    return steps_alone(server, 1, random_grads(2, seed=5))[1]


def _backup_is_a_copy(target: Target) -> None:
    """A stale gradient was treated like a fresh one: the backup moved with the weights."""
    if not target.compensates or target.uncompensated is None:
        raise DoesNotApply("it does not look at how far the weights have moved")
    if target.rule and target.rule.admission.verdict(_stale_by_one()) == "drop":
        raise DoesNotApply("it drops gradients that are stale by one update")
    mine = _stale_push(target.make)
    plain = _stale_push(target.uncompensated)
    require(
        not torch.equal(mine, plain),
        "after the weights had moved, a stale gradient did what it does without compensation",
    )


def _stale_push(make: MakeServer) -> Tensor:
    server = make(start_weights(), 2, LR)
    server.pull(0)
    server.pull(1)
    grads = random_grads(2)
    server.push(1, grads[0])
    server.push(0, grads[1])
    return server.pull(0).clone()


def _stale_by_one() -> Facts:
    return Facts(LR, LR, staleness=1, version=1, worker=0, num_workers=2, grad_norm=1.0)


def _settles(target: Target) -> None:
    """The strength of the compensation keeps growing or shrinking with every push."""
    if not target.compensates or target.uncompensated is None:
        raise DoesNotApply("it does not look at how far the weights have moved")
    strengths = [_strength(target, pushes) for pushes in (8, 16, 32)]
    if min(strengths) == 0:
        raise DoesNotApply("it compensates nothing")
    early, late = (abs(math.log(b / a)) for a, b in pairwise(strengths))
    require(
        late <= early + 0.05,
        "for gradients of one size the strength of the correction was "
        f"{', '.join(f'{s:.3g}' for s in strengths)} after 8, 16 and 32 pushes",
    )


def _strength(target: Target, pushes: int) -> float:
    """Correction over drift after so many pushes of gradients of one size."""
    mine, plain, drift = _after_a_drift(target, pushes)
    return float(((mine - plain) / drift).abs().mean())


def _after_a_drift(target: Target, pushes: int) -> tuple[Tensor, Tensor, Tensor]:
    """The step of a push that is stale by one, with and without compensation, and the drift.

    Before it come so many pushes; all gradients are alike.
    """
    grad = torch.full((SIZE,), 0.5, dtype=torch.float64)
    steps, drifts = [], []
    for make in (target.make, target.uncompensated):
        assert make is not None  # the caller has looked
        server = make(start_weights(), 2, 0.01)
        steps_alone(server, 0, [grad] * pushes)
        before = server.pull(0).clone()
        server.pull(1)
        server.push(1, grad)
        now = server.pull(1).clone()
        drifts.append(now - before)
        server.push(0, grad)
        steps.append(server.pull(0) - now)
    require(bool(drifts[0].abs().min() > 0), "the weights did not move under a gradient")
    return steps[0], steps[1], drifts[0]


def _goes_with_the_drift(target: Target) -> None:
    """The correction has the wrong sign: it takes a stale gradient away from the one of now."""
    # lambda g g (w - w_bak) has the sign of w - w_bak: lambda and the square are not negative.
    if not target.aims or target.uncompensated is None:
        raise DoesNotApply("it has no setting dc_lambda")
    mine, plain, drift = _after_a_drift(target, 8)
    # What is subtracted more, in the direction in which the weights have moved.
    along = (plain - mine) * drift
    wrong = int(along.argmin())
    require(
        float(along[wrong]) >= 0,
        f"element {wrong}: the weights had moved by {float(drift[wrong]):.4g}, and the correction "
        f"moved them on by {float((mine - plain)[wrong]):.4g}",
    )


def _lambda_zero(target: Target) -> None:
    """With strength 0 something was still done to stale gradients."""
    if target.without_lambda is None:
        raise DoesNotApply("it has no setting dc_lambda")
    mine, plain = (
        drive(make(start_weights(), 3, LR), 3, random_picks(6), noisy_bowl())
        for make in target.without_lambda
    )
    require_all_equal(mine, plain, "with dc_lambda = 0")


COMPENSATION_LAWS: tuple[Law[Target], ...] = (
    Law("staleness 0 is the plain rule", _fresh_is_plain),
    Law("each worker's first update is from w_0", _first_from_initial_weights),
    Law("one backup per worker", _own_backup),
    Law("the backup is a copy", _backup_is_a_copy),
    Law("the correction has the sign of the drift", _goes_with_the_drift),
    Law("lambda does not compound", _settles),
    Law("lambda 0 is the plain rule", _lambda_zero),
)
"""In the order of reports."""
