"""A rule: parts in a fixed order, fused into one pass over memory.

Order: clipping, weight decay, compensation, momentum, decoupled weight decay, step size.
Admission comes before all of them and reads no vector. For each element the pass reads gradient,
weights, snapshot and state once and writes weights, snapshot and state once; the new snapshot is
what the worker is sent next, so sending costs no further copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from mpi_dcasgd.rules.part import Facts, Lanes, Part
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.rules.weight_decay import WeightDecay

__all__ = ["Chain", "Rule"]

BLOCK = 1 << 16
"""Elements in a block: seven float32 lanes of it and temporaries stay within a core's L2."""


class Chain:
    """A rule at work on one vector of parameters.

    Args:
        rule: The parts.
        params: The weights, shape (P,), float32; updated in place by ``apply``.
        num_workers: How many workers push.
    """

    def __init__(self, rule: Rule, params: Tensor, num_workers: int) -> None:
        self.rule = rule
        self.num_workers = num_workers
        # A part that neither computes nor remembers anything is left out of the pass.
        self._parts = [(role, part) for role, part in rule.parts() if _acts(part)]
        self._ahead = [(r, part) for r, part in self._parts if type(part).sent is not Part.sent]
        self._state: dict[str, list[Tensor]] = {}
        for role, vector in rule.vectors():
            copies = num_workers if vector.per_worker else 1
            self._state[f"{role}.{vector.name}"] = [
                params.clone() if vector.fill == "weights" else torch.zeros_like(params)
                for _ in range(copies)
            ]

    def apply(self, params: Tensor, grad: Tensor, snapshot: Tensor, facts: Facts) -> float:
        """Take one step and renew the snapshot; returns the learning rate that was used.

        Args:
            params: w_t, shape (P,); becomes w_{t+1}.
            grad: g_m, shape (P,); left as it is.
            snapshot: w_bak(m), shape (P,), not the same memory as ``params``; becomes what the
                worker is to be sent, which is w_{t+1} unless a part looks ahead.
            facts: What is known about this push.
        """
        rate = facts.lr * self.rule.step_size.factor(facts)
        scalars = [part.scalars(facts) for _, part in self._parts]
        state = [self._vectors_of(role, part, facts.worker) for role, part in self._parts]
        for block in _blocks(params):
            self._pass(
                params[block],
                grad[block],
                snapshot[block],
                [tuple(vector[block] for vector in vectors) for vectors in state],
                scalars,
                rate,
            )
        return rate

    def send(self, params: Tensor, snapshot: Tensor, facts: Facts) -> None:
        """Renew a worker's snapshot without a step: for a first pull, or after a wait.

        Args:
            params: w_t, shape (P,).
            snapshot: Becomes what the worker is sent, shape (P,).
            facts: Of the worker, with the present learning rate.
        """
        rate = facts.lr * self.rule.step_size.factor(facts)
        value = params
        for role, part in self._ahead:
            state = self._vectors_of(role, part, facts.worker)
            value = part.sent(value, state, part.scalars(facts), rate)
        snapshot.copy_(value)

    def _pass(
        self,
        params: Tensor,
        grad: Tensor,
        snapshot: Tensor,
        state: list[tuple[Tensor, ...]],
        scalars: list[tuple[float, ...]],
        rate: float,
    ) -> None:
        lanes = Lanes(grad, grad, params, snapshot)
        for (_, part), old, numbers in zip(self._parts, state, scalars, strict=True):
            lanes, new = part.update(lanes, old, numbers)
            for kept, value in zip(old, new, strict=True):
                kept.copy_(value)
        params.sub_(lanes.direction * rate)
        value = params
        for (_, part), new, numbers in zip(self._parts, state, scalars, strict=True):
            value = part.sent(value, new, numbers, rate)
        snapshot.copy_(value)

    def _vectors_of(self, role: str, part: Part, worker: int) -> tuple[Tensor, ...]:
        return tuple(
            self._state[f"{role}.{vector.name}"][worker if vector.per_worker else 0]
            for vector in part.vectors()
        )

    def state_dict(self) -> dict[str, list[Tensor]]:
        """The state vectors by ``role.name``: one, or one a worker. Not copies."""
        return dict(self._state)

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over the values that ``state_dict`` gave.

        Raises:
            KeyError: ``saved`` belongs to another rule.
        """
        for name, vectors in self._state.items():
            for mine, theirs in zip(vectors, saved[name], strict=True):
                mine.copy_(theirs)


def _acts(part: Part) -> bool:
    if isinstance(part, WeightDecay) and part.rate == 0:
        return False
    return type(part).update is not Part.update


def _blocks(vector: Tensor) -> Iterator[slice]:
    length = vector.numel()
    # A GPU has no cache to block for, and every further launch would cost more than it saves.
    step = BLOCK if vector.device.type == "cpu" else length
    for start in range(0, length, step):
        yield slice(start, start + step)
