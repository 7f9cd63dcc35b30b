"""Laws of a server: what anyone can see who pulls weights and pushes gradients.

They compare a target with itself under a change that must not matter (workers change names,
elements are permuted), with the plain rule where the two must be the same, and at last with a
formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from mpi_dcasgd.rules.blocks import BLOCK
from mpi_dcasgd.rules.chain import Chain
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.tools.conformance.compensation_laws import COMPENSATION_LAWS
from mpi_dcasgd.tools.conformance.driving import (
    LR,
    PUSHES,
    SIZE,
    drive,
    noisy_bowl,
    random_grads,
    random_picks,
    random_vectors,
    start_weights,
)
from mpi_dcasgd.tools.conformance.formula_law import FORMULA_LAWS
from mpi_dcasgd.tools.conformance.group_laws import GROUP_LAWS
from mpi_dcasgd.tools.conformance.law import (
    DoesNotApply,
    Law,
    require,
    require_all_equal,
    require_equal,
)
from mpi_dcasgd.tools.conformance.servers import may_push
from mpi_dcasgd.tools.conformance.targets import Target


def _leaves_others_alone(target: Target) -> None:
    """A gradient, or weights that a worker holds, changed under its hands."""
    server = target.make(start_weights(), 3, LR)
    held = [server.pull(worker) for worker in range(3)]
    mine = [weights.clone() for weights in held]
    for grad in random_grads(2):
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
    mine = drive(target.make(start_weights(), 3, LR), 3, random_picks(7), noisy_bowl())
    renamed = drive(
        target.make(start_weights(), 3, LR), 3, random_picks(7), noisy_bowl(), (2, 0, 1)
    )
    require_all_equal(renamed, mine, "with the workers renamed")


def _same_twice(target: Target) -> None:
    """Something besides the pushes decided about the result."""
    first, second = (
        drive(target.make(start_weights(), 3, LR), 3, random_picks(8), noisy_bowl())
        for _ in range(2)
    )
    same = all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    require(same, "the same pushes gave other weights the second time")


def _keeps_type(target: Target) -> None:
    """Weights came back in another type or shape."""
    for dtype in (torch.float32, torch.float64):
        start = start_weights(dtype)
        pulled = drive(target.make(start, 2, LR), 2, random_picks(9, 4), noisy_bowl(dtype))[-1]
        require(
            pulled.dtype == dtype and pulled.shape == (SIZE,),
            f"pulled {pulled.dtype} of shape {tuple(pulled.shape)}, "
            f"expected {dtype} of shape ({SIZE},)",
        )


def _elementwise(target: Target) -> None:
    """Elements of the vector know of one another, so it cannot be cut into blocks."""
    order = torch.randperm(SIZE, generator=torch.Generator().manual_seed(10))
    bowl = noisy_bowl()
    mine = drive(target.make(start_weights(), 3, LR), 3, random_picks(11), bowl)
    permuted = drive(
        target.make(start_weights()[order], 3, LR),
        3,
        random_picks(11),
        lambda number, weights: bowl(number, weights[torch.argsort(order)])[order],
    )
    require_all_equal(permuted, [weights[order] for weights in mine], "with elements permuted")


def _pads_stay_zero(target: Target) -> None:
    """Elements with zero weight and zero gradient, as between two tensors, became something."""
    pads = torch.arange(SIZE) % 3 == 0
    start = start_weights().masked_fill(pads, 0.0)
    bowl = noisy_bowl()
    for pulled in drive(
        target.make(start, 3, LR),
        3,
        random_picks(12),
        lambda number, weights: bowl(number, weights).masked_fill(pads, 0.0),
    ):
        require(bool((pulled[pads] == 0).all()), f"a pad became {pulled[pads].abs().max()}")


def _stays_finite(target: Target) -> None:
    """Finite weights and gradients gave NaN or infinity."""
    scales = torch.tensor([0.0, 1e-30, 1e-12, 1e-3, 1.0, 30.0, 1e3, 0.0, 1e-20, 1e-6, 0.1, 1e2])
    signs = random_vectors(13, PUSHES, SIZE, dtype=torch.float32).sign()
    for rate in (0.0, 1e-6):
        server = target.make(random_vectors(14, SIZE, dtype=torch.float32), 3, rate)
        seen = drive(
            server,
            3,
            random_picks(15),
            lambda number, weights: scales.roll(number // 4).to(weights.dtype) * signs[number],
        )
        for step, pulled in enumerate(seen):
            require(bool(torch.isfinite(pulled).all()), f"push {step}, learning rate {rate}")


def _goes_on_after_saving(target: Target) -> None:
    """The saved state is not all that the server resumes from."""
    first: Any = target.make(start_weights(), 3, LR)
    if not (hasattr(first, "state_dict") and hasattr(first, "load_state_dict")):
        raise DoesNotApply("it has no state_dict and load_state_dict")
    grads = iter(random_grads(9))
    for worker in (0, 1, 2, 0, 2):
        first.pull(worker)
        if may_push(first, worker):
            first.push(worker, next(grads))
    second: Any = target.make(start_weights(), 3, LR)
    second.load_state_dict(_copied(first.state_dict()))
    for worker, grad in zip((1, 0, 2, 1), random_grads(4, seed=16), strict=True):
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
    start = random_vectors(17, size)
    cuts = [0, 7, size // 3, size]
    pieces = [slice(a, b) for a, b in pairwise(cuts)]
    whole = _Loose(target, start.clone())
    parts = [_Loose(target, start[piece].clone()) for piece in pieces]
    for version, worker in enumerate((0, 1, 1, 0)):
        grad = random_vectors(18 + version, size)
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
    *COMPENSATION_LAWS,
    Law("gradients and pulled weights are left alone", _leaves_others_alone),
    Law("workers are alike", _workers_are_alike),
    Law("the same pushes give the same weights", _same_twice),
    Law("type and shape are kept", _keeps_type),
    Law("elementwise", _elementwise),
    Law("pads stay zero", _pads_stay_zero),
    Law("finite in, finite out", _stays_finite),
    Law("saved and restored, it goes on the same", _goes_on_after_saving),
    Law("the block size does not matter", _block_size_is_free),
    *GROUP_LAWS,
    *FORMULA_LAWS,
)
"""All laws of a server, in the order of reports."""
