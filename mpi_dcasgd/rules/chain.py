"""A rule: parts in a fixed order, fused into one pass over memory.

Order: clipping, weight decay, compensation, momentum, decoupled weight decay, step size.
Admission comes before all of them and reads no vector. For each element the pass reads gradient,
weights, snapshot and state once and writes weights, snapshot and state once; the new snapshot is
what the worker is sent next, so sending costs no further copy.

Where parameters are in groups, each stretch of the vector has a pass of its own, with its own
factors of learning rate and weight decay: together they read and write what one pass would.
So has each chunk where the vector is to be updated chunk by chunk (``cuts``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
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
    """A stretch, or what of it is in one chunk, at work.

    Its arithmetic, pass, place in the vector, numbers, and state by worker.
    """

    step: StretchStep
    run: Pass
    piece: slice | None  # None for the whole vector
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
        cuts: Elements at which all chunks but the first begin, in order, where ``apply_chunk`` is
            to be called; no result depends on them.

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
        cuts: Sequence[int] = (),
    ) -> None:
        self.rule = rule
        self.num_workers = num_workers
        self._block = block
        self.stretches = merged(stretches) or (Stretch(0, params.numel()),)
        _check_cover(self.stretches, params.numel())
        self._state = _new_state(rule, params, num_workers)
        steps = [StretchStep(rule, stretch, num_workers) for stretch in self.stretches]
        ranges = _ranges(self.stretches, cuts)
        pieces = [slice(begin, end) if len(ranges) > 1 else None for _, begin, end in ranges]
        fused = fuse_all(
            [
                (steps[index].step, _cut(params, piece), steps[index].num_numbers)
                for (index, _, _), piece in zip(ranges, pieces, strict=True)
            ],
            steps[0].num_vectors,
            fuse,
            block,
        )
        self.kernel: Kernel = fused[0].kernel
        moved = [one.vectors_moved for one in fused if one.vectors_moved is not None]
        self.vectors_moved = max(moved) if len(moved) == len(fused) else None
        self._sizes = [end - begin for _, begin, end in ranges]
        self._looks_ahead = steps[0].looks_ahead
        places = _places(steps)
        self._placed = list(zip(steps, places, strict=True))
        self._values = [0.0] * places[-1].stop
        self._numbers = torch.zeros(len(self._values), dtype=params.dtype, device=params.device)
        self._written = self._numbers.numpy() if params.device.type == "cpu" else None
        vectors = [self._vectors_of(worker, steps[0]) for worker in range(num_workers)]
        self._works = [
            _Work(
                steps[index],
                one.run,
                piece,
                self._numbers[places[index]],
                [tuple(_cut(vector, piece) for vector in mine) for mine in vectors],
            )
            for (index, _, _), one, piece in zip(ranges, fused, pieces, strict=True)
        ]
        self._chunks = [
            [work for work, (_, at, _) in zip(self._works, ranges, strict=True) if here <= at < end]
            for here, end in pairwise((0, *cuts, params.numel()))
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
        rate = self.begin(facts)
        if len(self._works) == 1:
            (work,) = self._works
            work.run(params, grad, snapshot, work.numbers, *work.vectors[facts.worker])
        else:
            pieces = (torch.split_with_sizes(v, self._sizes) for v in (params, grad, snapshot))
            for work, *lanes in zip(self._works, *pieces, strict=True):
                work.run(*lanes, work.numbers, *work.vectors[facts.worker])
        return rate

    def begin(self, facts: Facts) -> float:
        """Begin a step that ``apply_chunk`` takes chunk by chunk; returns its learning rate."""
        self._take_down(facts)
        return rate_of(self.rule, facts)

    def apply_chunk(
        self, chunk: int, params: Tensor, grad: Tensor, snapshot: Tensor, worker: int
    ) -> None:
        """Take the step that was begun in one chunk.

        Args:
            chunk: The how many-th, from 0; all of them make what ``apply`` makes, in any order.
            params: w_t, grad and snapshot are as for ``apply``: the whole vectors.
            grad: Read within the chunk alone.
            snapshot: As above.
            worker: Whose push it is.
        """
        for work in self._chunks[chunk]:
            lanes = (_cut(vector, work.piece) for vector in (params, grad, snapshot))
            work.run(*lanes, work.numbers, *work.vectors[worker])

    def state_of_chunk(self, chunk: int, worker: int) -> list[Tensor]:
        """Return views of the state vectors that a step in a chunk writes."""
        return [vector for work in self._chunks[chunk] for vector in work.vectors[worker]]

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
        for step, place in self._placed:
            self._values[place] = step.numbers(facts, rate)
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


def _ranges(stretches: Sequence[Stretch], cuts: Sequence[int]) -> list[tuple[int, int, int]]:
    """Cut stretches at the beginnings of chunks: number of the stretch, begin and end of each."""
    found = []
    for index, one in enumerate(stretches):
        inside = [cut for cut in cuts if one.begin < cut < one.end]
        found += [(index, *ends) for ends in pairwise((one.begin, *inside, one.end))]
    return found


def _check_cover(stretches: Sequence[Stretch], size: int) -> None:
    ends = [0, *(one.end for one in stretches)]
    if [one.begin for one in stretches] != ends[:-1] or ends[-1] != size:
        raise ValueError(f"stretches that do not cover {size} elements in order: {stretches}")
