"""Seeds for many keys at once: what ``numpy.random.SeedSequence`` gives for each of them.

One sequence takes as long to make as a tenth of a small model's step, most of it to get there.
NumPy's hash (O'Neill's ``seed_seq`` with a pool of four words) is part of what it promises to
keep, so the same numbers can be had for all tickets of an epoch in one go.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

_POOL = 4
WORD = 1 << 32
"""Numbers below this are one word of a key."""


def seeds(key: tuple[int, int, int], last: Words) -> NDArray[np.uint64]:
    """``SeedSequence([*key, n]).generate_state(1, np.uint64)[0]`` for each n of ``last``.

    Args:
        key: Numbers from 0 up to ``WORD``.
        last: Any number of them, shape (n,).

    Returns:
        Shape (n,).
    """
    absorb = _hasher(0x43B0D7E5, 0x931E8875)
    pool = [absorb(np.full_like(last, number)) for number in key]
    pool.append(absorb(last))
    for source in range(_POOL):
        for target in range(_POOL):
            if source != target:
                pool[target] = _mix(pool[target], absorb(pool[source]))
    give = _hasher(0x8B51F9DD, 0x58F38DED)
    low, high = give(pool[0]), give(pool[1])
    return low.astype(np.uint64) | high.astype(np.uint64) << np.uint64(32)


def _hasher(constant: int, factor: int) -> Callable[[Words], Words]:
    """A hash whose constant moves on at every use."""

    def hashed(words: Words) -> Words:
        nonlocal constant
        words = words ^ np.uint32(constant)
        constant = constant * factor % WORD
        return _folded(words * np.uint32(constant))

    return hashed


def _mix(words: Words, others: Words) -> Words:
    return _folded(words * np.uint32(0xCA01F9DD) - others * np.uint32(0x4973F715))


def _folded(words: Words) -> Words:
    return words ^ words >> np.uint32(16)
