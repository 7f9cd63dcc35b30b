"""The size of what delay compensation adds to a gradient, without a step being taken."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mpi_dcasgd.rules.block_ops import split
from mpi_dcasgd.rules.blocks import BLOCK
from mpi_dcasgd.rules.chain import Chain
from mpi_dcasgd.rules.part import Facts, Lanes, Part
from mpi_dcasgd.rules.stretch import StretchStep


def compensates(chain: Chain) -> bool:
    """Return whether the chain's rule has a compensation that does anything."""
    return type(chain.rule.compensation).update is not Part.update


def correction_norm(
    chain: Chain, params: Tensor, grad: Tensor, snapshot: Tensor, facts: Facts
) -> float:
    """Return the Euclidean norm of what the compensation would add to the direction of a push.

    That is what the direction is after it less what it was before, whichever part of the rule it
    is: the parts are asked as they are, with the state that they have, and nothing is changed.

    Args:
        chain: At work on ``params``.
        params: w_t, shape (P,).
        grad: g_m, shape (P,).
        snapshot: w_bak(m), shape (P,).
        facts: What is known about the push.

    Returns:
        0 for a rule without compensation.
    """
    if not compensates(chain):
        return 0.0
    kept, total = chain.state_dict(), 0.0
    for stretch in chain.stretches:
        step = StretchStep(chain.rule, stretch, chain.num_workers)
        numbers = torch.tensor(step.numbers(facts), dtype=params.dtype, device=params.device)
        vectors = [
            kept[f"{role}.{vector.name}"][facts.worker if vector.per_worker else 0]
            for role, part in step.parts
            for vector in part.vectors()
        ]
        lanes = [v[stretch.begin : stretch.end] for v in (params, grad, snapshot, *vectors)]
        for block in zip(*(split(lane, BLOCK) for lane in lanes), strict=True):
            total += _squares(step, numbers, block)
    return math.sqrt(total)


def _squares(step: StretchStep, numbers: Tensor, block: Sequence[Tensor]) -> float:
    """The squared norm of the correction in one block."""
    params, grad, snapshot, *state = block
    lanes = Lanes(grad, grad, params, snapshot)
    for part, scalars, mine in step.shares(numbers, tuple(state)):
        before = lanes.direction
        lanes, _ = part.update(lanes, mine, scalars)
        if part.role == "compensation":
            return float((lanes.direction - before).double().square().sum())
    return 0.0
