"""A rule: parts in a fixed order, fused into one pass over memory.

Order: clipping, weight decay, compensation, momentum, decoupled weight decay, step size.
Admission comes before all of them and reads no vector. For each element the pass reads gradient,
weights, snapshot and state once and writes weights, snapshot and state once; the new snapshot is
what the worker is sent next, so sending costs no further copy.

Where parameters are in groups, each stretch of the vector has a pass of its own, with its own
factors of learning rate and weight decay: together they read and write what one pass would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mpi_dcasgd.rules.alignment import zeros_beside
from mpi_dcasgd.rules.block_ops import split
from mpi_dcasgd.rules.blocks import BLOCK
from mpi_dcasgd.rules.fuse import Fuse, Kernel, Pass, fuse_all
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.rules.stretch import Stretch, StretchStep, acting_parts, merged, rate_of

__all__ = ["Chain", "Rule", "acting_parts"]

_FIRST_STATE_LANE = 3
"""Weights, snapshot and gradient are lanes 0, 1 and 2 (alignment.py)."""

_NUMBERS_ALIGN = 16
"""Elements to which a stretch's numbers are aligned: compiled code expects 16 bytes at least."""


class _Work(NamedTuple):
    """A stretch at work: arithmetic, pass, place in the vector, numbers, and state by worker."""

    step: StretchStep
    run: Pass
    piece: slice | None  # None for the whole vector
    place: slice  # of its numbers among all
    numbers: Tensor
    vectors: list[tuple[Tensor, ...]]


class Chain:
    """A rule at work on one vector of parameters.

    The pass is made here, and compiled here if it is compiled at all (fuse.py).

    Args:
        rule: The parts.
        params: The weights, shape (P,), float32; updated in place by ``apply``.
        num_workers: How many workers push.
        fuse: ``compiled``, ``blocks``, or ``auto`` for whichever pays.
        block: Elements in a block; no result depends on it.
        stretches: Parts of the vector with factors of their own, which cover it in order; none
            for the rule as it is on all of it.

    Attributes:
        kernel: ``compiled``, ``blocks`` or ``plain``: how the pass runs, and how a replay must
            run it.
        vectors_moved: The fewest vectors that an update reads and writes, the most over the
            stretches; None if not known.
        stretches: Those that are updated one by one.
    """

    def __init__(
        self,
        rule: Rule,
        params: Tensor,
        num_workers: int,
        fuse: Fuse = "auto",
        block: int = BLOCK,
        stretches: Sequence[Stretch] = (),
    ) -> None:
        self.rule = rule
        self.num_workers = num_workers
        self._block = block
        self.stretches = merged(stretches) or (Stretch(0, params.numel()),)
        _check_cover(self.stretches, params.numel())
        self._state = _new_state(rule, params, num_workers)
        steps = [StretchStep(rule, stretch, num_workers) for stretch in self.stretches]
        pieces = [slice(one.begin, one.end) if len(steps) > 1 else None for one in self.stretches]
        fused = fuse_all(
            [
                (step.step, _cut(params, piece), step.num_numbers)
                for step, piece in zip(steps, pieces, strict=True)
            ],
            steps[0].num_vectors,
            fuse,
            block,
        )
        self.kernel: Kernel = fused[0].kernel
        moved = [one.vectors_moved for one in fused if one.vectors_moved is not None]
        self.vectors_moved = max(moved) if len(moved) == len(fused) else None
        self._sizes = [one.end - one.begin for one in self.stretches]
        self._looks_ahead = steps[0].looks_ahead
        places = _places(steps)
        self._values = [0.0] * places[-1].stop
        self._numbers = torch.zeros(len(self._values), dtype=params.dtype, device=params.device)
        self._written = self._numbers.numpy() if params.device.type == "cpu" else None
        vectors = [self._vectors_of(worker, steps[0]) for worker in range(num_workers)]
        self._works = [
            _Work(
                step,
                one.run,
                piece,
                place,
                self._numbers[place],
                [tuple(_cut(vector, piece) for vector in mine) for mine in vectors],
            )
            for step, one, piece, place in zip(steps, fused, pieces, places, strict=True)
        ]

    def apply(self, params: Tensor, grad: Tensor, snapshot: Tensor, facts: Facts) -> float:
        """Take one step and renew the snapshot; returns the learning rate that was used.

        The rate is that of the rule, before the factors of stretches.

        Args:
            params: w_t, shape (P,); becomes w_{t+1}.
            grad: g_m, shape (P,); left as it is.
            snapshot: w_bak(m), shape (P,), not the same memory as ``params``; becomes what the
                worker is to be sent, which is w_{t+1} unless a part looks ahead.
            facts: What is known about this push.
        """
        self._take_down(facts)
        if len(self._works) == 1:
            (work,) = self._works
            work.run(params, grad, snapshot, work.numbers, *work.vectors[facts.worker])
        else:
            pieces = (torch.split_with_sizes(v, self._sizes) for v in (params, grad, snapshot))
            for work, *lanes in zip(self._works, *pieces, strict=True):
                work.run(*lanes, work.numbers, *work.vectors[facts.worker])
        return rate_of(self.rule, facts)

    def send(
        self, params: Tensor, snapshot: Tensor, facts: Facts, rate: float | None = None
    ) -> None:
        """Renew a worker's snapshot without a step: for a first pull, or after a wait.

        Args:
            params: w_t, shape (P,).
            snapshot: Becomes what the worker is sent, shape (P,).
            facts: Of the worker, with the present learning rate.
            rate: ``lasting_rate`` of the last update, which others were sent their weights with;
                None if there has been none.
        """
        if not self._looks_ahead:
            snapshot.copy_(params)
            return
        self._take_down(facts, rate)
        for work in self._works:
            mine = _cut(snapshot, work.piece), _cut(params, work.piece)
            vectors = (*mine, *work.vectors[facts.worker])
            blocks = zip(*(split(vector, self._block) for vector in vectors), strict=True)
            for target, block, *state in blocks:
                target.copy_(work.step.sent(block, work.numbers, tuple(state)))

    def _take_down(self, facts: Facts, rate: float | None = None) -> None:
        """Put the numbers of a push where the passes read them."""
        for work in self._works:
            self._values[work.place] = work.step.numbers(facts, rate)
        if self._written is not None:
            self._written[:] = self._values
        else:
            # Fresh memory each time: the copy may still be under way at the next push.
            fresh = torch.tensor(self._values, dtype=self._numbers.dtype)
            self._numbers.copy_(fresh, non_blocking=True)

    def _vectors_of(self, worker: int, step: StretchStep) -> tuple[Tensor, ...]:
        return tuple(
            self._state[f"{role}.{vector.name}"][worker if vector.per_worker else 0]
            for role, part in step.parts
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
        for role, part in self._works[0].step.parts:
            mine = {v.name: self._state[f"{role}.{v.name}"] for v in part.vectors()}
            same = True
            for name, vectors in mine.items():
                theirs = saved[f"{role}.{name}"]
                same = same and len(theirs) == len(vectors)
                for vector, value in zip(vectors, theirs, strict=False):
                    vector.copy_(value)
            if not same:
                part.regrouped(mine)


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


def _cut(vector: Tensor, piece: slice | None) -> Tensor:
    return vector if piece is None else vector[piece]


def _places(steps: Sequence[StretchStep]) -> list[slice]:
    """Find where in one vector the numbers of each stretch are."""
    found: list[slice] = []
    for step in steps:
        begin = -(-found[-1].stop // _NUMBERS_ALIGN) * _NUMBERS_ALIGN if found else 0
        found.append(slice(begin, begin + step.num_numbers))
    return found


def _check_cover(stretches: Sequence[Stretch], size: int) -> None:
    ends = [0, *(one.end for one in stretches)]
    if [one.begin for one in stretches] != ends[:-1] or ends[-1] != size:
        raise ValueError(f"stretches that do not cover {size} elements in order: {stretches}")
