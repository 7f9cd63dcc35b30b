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

from mpi_dcasgd.rules.alignment import zeros_beside
from mpi_dcasgd.rules.block_ops import split
from mpi_dcasgd.rules.blocks import BLOCK
from mpi_dcasgd.rules.fuse import Fuse
from mpi_dcasgd.rules.fuse import fuse as _fuse
from mpi_dcasgd.rules.part import Facts, Lanes, Part
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.rules.weight_decay import WeightDecay

__all__ = ["Chain", "Rule", "acting_parts"]

_FIRST_STATE_LANE = 3
"""Weights, snapshot and gradient are lanes 0, 1 and 2 (alignment.py)."""


class Chain:
    """A rule at work on one vector of parameters.

    The pass is made here, and compiled here if it is compiled at all (fuse.py).

    Args:
        rule: The parts.
        params: The weights, shape (P,), float32; updated in place by ``apply``.
        num_workers: How many workers push.
        fuse: ``compiled``, ``blocks``, or ``auto`` for whichever pays.
        block: Elements in a block; no result depends on it.

    Attributes:
        kernel: ``compiled``, ``blocks`` or ``plain``: how the pass runs, and how a replay must
            run it.
        vectors_moved: The fewest vectors that an update reads and writes; None if not known.
    """

    def __init__(
        self, rule: Rule, params: Tensor, num_workers: int, fuse: Fuse = "auto", block: int = BLOCK
    ) -> None:
        self.rule = rule
        self.num_workers = num_workers
        self._block = block
        self._parts = acting_parts(rule)
        self._looks_ahead = any(type(part).sent is not Part.sent for _, part in self._parts)
        self._state = _new_state(rule, params, num_workers)
        self._vectors = [self._vectors_of(worker) for worker in range(num_workers)]
        self._counts = [
            (len(part.scalars(_example(num_workers))), len(part.vectors()))
            for _, part in self._parts
        ]
        num_numbers = 1 + sum(scalars for scalars, _ in self._counts)
        self._numbers = torch.zeros(num_numbers, dtype=params.dtype, device=params.device)
        self._written = self._numbers.numpy() if params.device.type == "cpu" else None
        fused = _fuse(self._step, params, num_numbers, len(self._vectors[0]), fuse, block)
        self.kernel = fused.kernel
        self.vectors_moved = fused.vectors_moved
        self._run = fused.run

    def apply(self, params: Tensor, grad: Tensor, snapshot: Tensor, facts: Facts) -> float:
        """Take one step and renew the snapshot; returns the learning rate that was used.

        Args:
            params: w_t, shape (P,); becomes w_{t+1}.
            grad: g_m, shape (P,); left as it is.
            snapshot: w_bak(m), shape (P,), not the same memory as ``params``; becomes what the
                worker is to be sent, which is w_{t+1} unless a part looks ahead.
            facts: What is known about this push.
        """
        rate = self._take_down(facts)
        self._run(params, grad, snapshot, self._numbers, *self._vectors[facts.worker])
        return rate

    def send(
        self, params: Tensor, snapshot: Tensor, facts: Facts, rate: float | None = None
    ) -> None:
        """Renew a worker's snapshot without a step: for a first pull, or after a wait.

        Args:
            params: w_t, shape (P,).
            snapshot: Becomes what the worker is sent, shape (P,).
            facts: Of the worker, with the present learning rate.
            rate: Of the last update, which others were sent their weights with; None if there
                has been none.
        """
        if not self._looks_ahead:
            snapshot.copy_(params)
            return
        self._take_down(facts, rate)
        vectors = (snapshot, params, *self._vectors[facts.worker])
        for target, block, *state in zip(*(split(v, self._block) for v in vectors), strict=True):
            target.copy_(self._sent(block, self._numbers, tuple(state)))

    def _take_down(self, facts: Facts, rate: float | None = None) -> float:
        """Put the numbers of a push where the pass reads them; returns the rate."""
        if rate is None:
            rate = facts.lr * self.rule.step_size.factor(facts)
        numbers = [rate]
        for _, part in self._parts:
            numbers += part.scalars(facts)
        if self._written is not None:
            self._written[:] = numbers
        else:
            # Fresh memory each time: the copy may still be under way at the next push.
            fresh = torch.tensor(numbers, dtype=self._numbers.dtype)
            self._numbers.copy_(fresh, non_blocking=True)
        return rate

    def _step(
        self, params: Tensor, grad: Tensor, snapshot: Tensor, numbers: Tensor, *state: Tensor
    ) -> tuple[Tensor, ...]:
        """New params, new snapshot, new state: the whole rule for one stretch of the vectors."""
        lanes = Lanes(grad, grad, params, snapshot)
        new_state: list[Tensor] = []
        if self._parts:
            for part, scalars, old in self._shares(numbers, state):
                lanes, new = part.update(lanes, old, scalars)
                new_state += new
        new_params = params - lanes.direction * numbers[0]
        if not self._looks_ahead:
            return new_params, new_params, *new_state
        return new_params, self._sent(new_params, numbers, tuple(new_state)), *new_state

    def _sent(self, params: Tensor, numbers: Tensor, state: tuple[Tensor, ...]) -> Tensor:
        value = params
        for part, scalars, vectors in self._shares(numbers, state):
            value = part.sent(value, vectors, scalars, numbers[0])
        return value

    def _shares(
        self, numbers: Tensor, state: tuple[Tensor, ...]
    ) -> Iterator[tuple[Part, tuple[Tensor, ...], tuple[Tensor, ...]]]:
        """Every part with its scalars and its state."""
        scalars = numbers.unbind()
        first_number, first_vector = 1, 0
        for (_, part), (num_scalars, num_vectors) in zip(self._parts, self._counts, strict=True):
            end_number, end_vector = first_number + num_scalars, first_vector + num_vectors
            yield part, scalars[first_number:end_number], state[first_vector:end_vector]
            first_number, first_vector = end_number, end_vector

    def _vectors_of(self, worker: int) -> tuple[Tensor, ...]:
        return tuple(
            self._state[f"{role}.{vector.name}"][worker if vector.per_worker else 0]
            for role, part in self._parts
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

    def take_over(self, saved: Mapping[str, Any]) -> None:
        """Load a state like ``load_state_dict``, for any number of workers (``Part.regrouped``).

        Raises:
            KeyError: ``saved`` belongs to another rule.
        """
        for role, part in self._parts:
            mine = {v.name: self._state[f"{role}.{v.name}"] for v in part.vectors()}
            same = True
            for name, vectors in mine.items():
                theirs = saved[f"{role}.{name}"]
                same = same and len(theirs) == len(vectors)
                for vector, value in zip(vectors, theirs, strict=False):
                    vector.copy_(value)
            if not same:
                part.regrouped(mine)


def acting_parts(rule: Rule) -> tuple[tuple[str, Part], ...]:
    """(role, part) of the parts that compute or remember something; the pass is made of these."""
    return tuple((role, part) for role, part in rule.parts() if _acts(part))


def _acts(part: Part) -> bool:
    if isinstance(part, WeightDecay) and part.rate == 0:
        return False
    return type(part).update is not Part.update


def _new_state(rule: Rule, params: Tensor, num_workers: int) -> dict[str, list[Tensor]]:
    state: dict[str, list[Tensor]] = {}
    for index, (role, vector) in enumerate(rule.vectors()):
        copies = num_workers if vector.per_worker else 1
        vectors = [zeros_beside(params, _FIRST_STATE_LANE + index) for _ in range(copies)]
        if vector.fill == "weights":
            for one in vectors:
                one.copy_(params)
        state[f"{role}.{vector.name}"] = vectors
    return state


def _example(num_workers: int) -> Facts:
    """Facts to ask a part with how many scalars it has."""
    return Facts(
        lr=0.1,
        lr_max=0.1,
        staleness=0,
        version=0,
        worker=0,
        num_workers=num_workers,
        grad_norm=1.0,
    )
