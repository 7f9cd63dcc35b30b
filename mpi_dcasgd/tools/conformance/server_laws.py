"""Laws of a server: what anyone can see who pulls weights and pushes gradients.

None of them knows a rule's formula. They compare a target with itself under a change that must
not matter (another worker pulls, elements are permuted, all weights are shifted), or with the
plain rule where the two must be the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from mpi_dcasgd.rules.blocks import BLOCK
from mpi_dcasgd.rules.chain import Chain
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.tools.conformance.law import (
    DoesNotApply,
    Law,
    require,
    require_all_equal,
    require_equal,
)
from mpi_dcasgd.tools.conformance.servers import MakeServer, Server, may_push
from mpi_dcasgd.tools.conformance.targets import Target

LR = 0.05
SIZE = 12
PUSHES = 24
NOTHING_LEFT = "it has no compensation, or nobody can say what it is without"


def _random(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def _start(dtype: torch.dtype = torch.float64) -> Tensor:
    return _random(1, SIZE, dtype=dtype)


def _picks(seed: int, pushes: int = PUSHES) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return [int(i) for i in torch.randint(0, 1 << 30, (pushes,), generator=generator)]


def drive(
    server: Server,
    num_workers: int,
    picks: Sequence[int],
    grad: Callable[[int, Tensor], Tensor],
    names: Sequence[int] | None = None,
) -> list[Tensor]:
    """All workers pull, then push in a random order, each pulling again at once.

    Args:
        server: What is driven.
        num_workers: Workers 0, 1, ...
        picks: One number a push; it chooses among the workers that have something to push.
        grad: Number of the push and weights pulled -> gradient.
        names: What the server knows each worker as, if not by its number.

    Returns:
        What each pushing worker pulled afterwards.
    """
    names = names or range(num_workers)
    pulled = [server.pull(name).clone() for name in names]
    seen = []
    for number, pick in enumerate(picks):
        able = [worker for worker in range(num_workers) if may_push(server, names[worker])]
        worker = able[pick % len(able)]
        server.push(names[worker], grad(number, pulled[worker]))
        for other in range(num_workers):
            # Those that had to wait are given their weights as soon as they may go on.
            if other == worker or (other not in able and may_push(server, names[other])):
                pulled[other] = server.pull(names[other]).clone()
        seen.append(pulled[worker].clone())
    return seen


def _noisy_bowl(dtype: torch.dtype = torch.float64) -> Callable[[int, Tensor], Tensor]:
    """Gradients of a quadratic with its minimum at 0, with noise."""
    curvature = torch.linspace(0.5, 2.0, SIZE, dtype=dtype)
    noise = _random(2, PUSHES, SIZE, dtype=dtype)
    return lambda number, weights: curvature * weights + 0.3 * noise[number]


def _steps(server: Server, worker: int, grads: Sequence[Tensor]) -> list[Tensor]:
    """How far each of a worker's pushes moves what it pulls, nobody else being there."""
    before = server.pull(worker).clone()
    steps = []
    for grad in grads:
        server.push(worker, grad.clone())
        after = server.pull(worker).clone()
        steps.append(after - before)
        before = after
    return steps


def _grads(count: int, seed: int = 3) -> list[Tensor]:
    return list(_random(seed, count, SIZE))


def _fresh_is_plain(target: Target) -> None:
    """A gradient computed at the weights of now was treated as if it were stale."""
    if target.plain is None:
        raise DoesNotApply(NOTHING_LEFT)
    grads = _grads(10)
    mine = _steps(target.make(_start(), 1, LR), 0, grads)
    plain = _steps(target.plain(_start(), 1, LR), 0, grads)
    # First pushes have a law of their own.
    require_all_equal(mine[1:], plain[1:], "one worker alone moves the weights by")


def _first_from_initial_weights(target: Target) -> None:
    """A worker's first gradient was compensated from something else than w_0."""
    if target.uncompensated is None:
        raise DoesNotApply(NOTHING_LEFT)
    for worker in range(3):
        mine = _first(target.make, _start(), [worker])
        plain = _first(target.uncompensated, _start(), [worker])
        require_equal(mine, plain, f"first push of all, by worker {worker}")
    if target.shifts:
        mine = _first(target.make, _start(), [0, 1])
        shifted = _first(target.make, _start() + 4.0, [0, 1])
        require_equal(shifted - 4.0, mine, "worker 1's first push, with 4 added to w_0")


def _first(make: MakeServer, weights: Tensor, pushers: Sequence[int]) -> Tensor:
    server = make(weights, 3, LR)
    for worker in range(3):
        server.pull(worker)
    for worker, grad in zip(pushers, _grads(3), strict=False):
        server.push(worker, grad)
        pulled = server.pull(worker).clone()
    return pulled


def _own_backup(target: Target) -> None:
    """What other workers pulled, or when, changed what a worker's gradient did."""
    if target.uncompensated is None:
        raise DoesNotApply(NOTHING_LEFT)
    results = []
    for other_pulls in (False, True):
        server = target.make(_start(), 2, LR)
        server.pull(0)
        server.pull(1)
        grads = _grads(2)
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
    server = make(_start(), 2, LR)
    _steps(server, 0, _grads(2, seed=4))
    return _steps(server, 1, _grads(2, seed=5))[1]


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
    server = make(_start(), 2, LR)
    server.pull(0)
    server.pull(1)
    grads = _grads(2)
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
    grad = torch.full((SIZE,), 0.5, dtype=torch.float64)
    ends = []
    for make in (target.make, target.uncompensated):
        assert make is not None  # the caller has looked
        server = make(_start(), 2, 0.01)
        _steps(server, 0, [grad] * pushes)
        before = server.pull(0).clone()
        server.pull(1)
        server.push(1, grad)
        drift = server.pull(1) - before
        server.push(0, grad)
        ends.append(server.pull(0).clone())
    require(bool(drift.abs().min() > 0), "the weights did not move under a gradient")
    return float(((ends[0] - ends[1]) / drift).abs().mean())


def _lambda_zero(target: Target) -> None:
    """With strength 0 something was still done to stale gradients."""
    if target.without_lambda is None:
        raise DoesNotApply("it has no setting dc_lambda")
    mine, plain = (
        drive(make(_start(), 3, LR), 3, _picks(6), _noisy_bowl()) for make in target.without_lambda
    )
    require_all_equal(mine, plain, "with dc_lambda = 0")


def _leaves_others_alone(target: Target) -> None:
    """A gradient, or weights that a worker holds, changed under its hands."""
    server = target.make(_start(), 3, LR)
    held = [server.pull(worker) for worker in range(3)]
    mine = [weights.clone() for weights in held]
    for grad in _grads(2):
        if may_push(server, 0):
            pushed = grad.clone()
            server.push(0, pushed)
            require(torch.equal(pushed, grad), "the gradient that was pushed has changed")
            server.pull(0)
    for worker in (1, 2):
        require(
            torch.equal(held[worker], mine[worker]),
            f"the weights that worker {worker} pulled changed when worker 0 pushed",
        )


def _workers_are_alike(target: Target) -> None:
    """It matters to the result which worker is called 0."""
    mine = drive(target.make(_start(), 3, LR), 3, _picks(7), _noisy_bowl())
    renamed = drive(target.make(_start(), 3, LR), 3, _picks(7), _noisy_bowl(), (2, 0, 1))
    require_all_equal(renamed, mine, "with the workers renamed")


def _same_twice(target: Target) -> None:
    """Something besides the pushes decided about the result."""
    first, second = (
        drive(target.make(_start(), 3, LR), 3, _picks(8), _noisy_bowl()) for _ in range(2)
    )
    same = all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    require(same, "the same pushes gave other weights the second time")


def _keeps_type(target: Target) -> None:
    """Weights came back in another type or shape."""
    for dtype in (torch.float32, torch.float64):
        start = _start(dtype)
        pulled = drive(target.make(start, 2, LR), 2, _picks(9, 4), _noisy_bowl(dtype))[-1]
        require(
            pulled.dtype == dtype and pulled.shape == (SIZE,),
            f"pulled {pulled.dtype} of shape {tuple(pulled.shape)}, "
            f"expected {dtype} of shape ({SIZE},)",
        )


def _elementwise(target: Target) -> None:
    """Elements of the vector know of one another, so it cannot be cut into blocks."""
    order = torch.randperm(SIZE, generator=torch.Generator().manual_seed(10))
    bowl = _noisy_bowl()
    mine = drive(target.make(_start(), 3, LR), 3, _picks(11), bowl)
    permuted = drive(
        target.make(_start()[order], 3, LR),
        3,
        _picks(11),
        lambda number, weights: bowl(number, weights[torch.argsort(order)])[order],
    )
    require_all_equal(permuted, [weights[order] for weights in mine], "with elements permuted")


def _pads_stay_zero(target: Target) -> None:
    """Elements with zero weight and zero gradient, as between two tensors, became something."""
    pads = torch.arange(SIZE) % 3 == 0
    start = _start().masked_fill(pads, 0.0)
    bowl = _noisy_bowl()
    for pulled in drive(
        target.make(start, 3, LR),
        3,
        _picks(12),
        lambda number, weights: bowl(number, weights).masked_fill(pads, 0.0),
    ):
        require(bool((pulled[pads] == 0).all()), f"a pad became {pulled[pads].abs().max()}")


def _stays_finite(target: Target) -> None:
    """Finite weights and gradients gave NaN or infinity."""
    scales = torch.tensor([0.0, 1e-30, 1e-12, 1e-3, 1.0, 30.0, 1e3, 0.0, 1e-20, 1e-6, 0.1, 1e2])
    signs = _random(13, PUSHES, SIZE, dtype=torch.float32).sign()
    for rate in (0.0, 1e-6):
        server = target.make(_random(14, SIZE, dtype=torch.float32), 3, rate)
        seen = drive(
            server,
            3,
            _picks(15),
            lambda number, weights: scales.roll(number // 4).to(weights.dtype) * signs[number],
        )
        for step, pulled in enumerate(seen):
            require(bool(torch.isfinite(pulled).all()), f"push {step}, learning rate {rate}")


def _goes_on_after_saving(target: Target) -> None:
    """What was saved is not all that the server goes on from."""
    first: Any = target.make(_start(), 3, LR)
    if not (hasattr(first, "state_dict") and hasattr(first, "load_state_dict")):
        raise DoesNotApply("it has no state_dict and load_state_dict")
    grads = iter(_grads(9))
    for worker in (0, 1, 2, 0, 2):
        first.pull(worker)
        if may_push(first, worker):
            first.push(worker, next(grads))
    second: Any = target.make(_start(), 3, LR)
    second.load_state_dict(_copied(first.state_dict()))
    for worker, grad in zip((1, 0, 2, 1), _grads(4, seed=16), strict=True):
        if not may_push(first, worker):
            continue
        ends = []
        for server in (first, second):
            server.push(worker, grad.clone())
            ends.append(server.pull(worker).clone())
        require(torch.equal(ends[0], ends[1]), f"worker {worker}'s push after restoring")


def _copied(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.clone()
    if isinstance(state, Mapping):
        return {key: _copied(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [_copied(value) for value in state]
    return state


def _block_size_is_free(target: Target) -> None:
    """The result depends on where the vector is cut into blocks."""
    if target.rule is None:
        raise DoesNotApply("it is not a rule of this package")
    size = BLOCK + 9
    start = _random(17, size)
    cuts = [0, 7, size // 3, size]
    pieces = [slice(a, b) for a, b in pairwise(cuts)]
    whole = _Loose(target, start.clone())
    parts = [_Loose(target, start[piece].clone()) for piece in pieces]
    for version, worker in enumerate((0, 1, 1, 0)):
        grad = _random(18 + version, size)
        facts = Facts(LR, LR, min(version, 1), version, worker, 2, float(grad.norm()))
        for loose, piece in zip((whole, *parts), (slice(None), *pieces), strict=True):
            loose.push(grad[piece], facts)
        together = torch.cat([part.params for part in parts])
        require_equal(whole.params, together, f"in one piece and in {len(pieces)}, push {version}")


class _Loose:
    """A chain with snapshots, outside of a server."""

    def __init__(self, target: Target, params: Tensor) -> None:
        assert target.rule is not None  # the caller has looked
        self.params = params
        self.chain = Chain(target.rule, params, 2, "blocks")
        self.snapshots = [params.clone() for _ in range(2)]

    def push(self, grad: Tensor, facts: Facts) -> None:
        self.chain.apply(self.params, grad, self.snapshots[facts.worker], facts)


SERVER_LAWS: tuple[Law[Target], ...] = (
    Law("staleness 0 is the plain rule", _fresh_is_plain),
    Law("each worker's first update is from w_0", _first_from_initial_weights),
    Law("one backup per worker", _own_backup),
    Law("the backup is a copy", _backup_is_a_copy),
    Law("lambda does not compound", _settles),
    Law("lambda 0 is the plain rule", _lambda_zero),
    Law("gradients and pulled weights are left alone", _leaves_others_alone),
    Law("workers are alike", _workers_are_alike),
    Law("the same pushes give the same weights", _same_twice),
    Law("type and shape are kept", _keeps_type),
    Law("elementwise", _elementwise),
    Law("pads stay zero", _pads_stay_zero),
    Law("finite in, finite out", _stays_finite),
    Law("saved and restored, it goes on the same", _goes_on_after_saving),
    Law("the block size does not matter", _block_size_is_free),
)
"""All laws of a server, in the order of reports."""
