"""Benchmark of the update rules against the memory that they have to move.

Every chain that the built-in rules come to is run in three ways: compiled, in blocks, and plainly
(one torch call after another over whole vectors). Beside it, in the same process and in turn with
it, runs a triad as STREAM has it, ``a = b + s * c``, compiled the same way. Bytes are counted for
both as the fewest that have to move: each vector that is read once, each that is written once,
and nothing for the cache lines that a processor fetches in order to overwrite them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from mpi_dcasgd.learning.layout import ALIGN
from mpi_dcasgd.pages import zeros
from mpi_dcasgd.rules.algorithms import ALGORITHMS, PARTS, resolve_rule
from mpi_dcasgd.rules.alignment import zeros_beside
from mpi_dcasgd.rules.chain import Chain, acting_parts
from mpi_dcasgd.rules.fuse import Kernel, fuse
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.rules.stretch import Stretch
from mpi_dcasgd.tools.bench.spread import Spread

SIZES = (270_000, 11_000_000, 25_600_000)
"""Parameters of ResNet-20 (CIFAR), ResNet-18 and ResNet-50."""

TRIAD_VECTORS = 3
_LEAST_S = 0.02
"""A sample takes at least so long, so that reading the clock costs nothing beside it."""

_FACTS = Facts(lr=1e-6, lr_max=1e-6, staleness=1, version=5, worker=0, num_workers=1, grad_norm=1.0)


@dataclass(frozen=True)
class Measured:
    """One chain at one size.

    Attributes:
        rules: Names of the rules that come to this chain.
        num_params: Length of the vectors.
        kernel: How the chain ran; ``blocks`` where it could not be compiled.
        vectors_moved: The fewest vectors that it reads and writes.
        update_s: Seconds of an update, as ``Chain.apply``.
        blocks_s: The same in blocks.
        plain_s: The same by torch calls over whole vectors.
        triad_s: Seconds of a triad of that length.
        update_over_triad: Bandwidth of the update over that of the triad beside it, repeat by
            repeat.
        prepare_s: Seconds to make the chain, which includes compiling it unless it was cached.
        groups: Number of parameter groups beside which it was measured; 1 for none.
        grouped_s: Seconds of an update in so many groups, compiled, if there are several.
        grouped_over_one: The same over ``update_s``, repeat by repeat.
    """

    rules: tuple[str, ...]
    num_params: int
    kernel: Kernel
    vectors_moved: int
    update_s: Spread
    blocks_s: Spread
    plain_s: Spread
    triad_s: Spread
    update_over_triad: Spread
    prepare_s: float
    groups: int = 1
    grouped_s: Spread | None = None
    grouped_over_one: Spread | None = None

    @property
    def update_bytes_per_s(self) -> float:
        return self.vectors_moved * self.num_params * 4 / self.update_s.median

    @property
    def triad_bytes_per_s(self) -> float:
        return TRIAD_VECTORS * self.num_params * 4 / self.triad_s.median


def built_in_rules() -> dict[str, Rule]:
    """Every named algorithm, and every part that none of them has, on top of plain ASGD."""
    rules = {name: resolve_rule(name) for name in ALGORITHMS}
    for role, parts in PARTS.items():
        for name in list(parts)[1:]:  # the first is what every algorithm has anyway
            if not any(named.parts.get(role) == name for named in ALGORITHMS.values()):
                rules[f"{role}: {name}"] = resolve_rule("asgd", {role: {"name": name}})
    rules["weight_decay: l2"] = resolve_rule("asgd", {"weight_decay": {"rate": 1e-4}})
    return rules


def measure(
    rules: dict[str, Rule],
    sizes: tuple[int, ...],
    repeats: int,
    tell: Callable[[str], None] = lambda line: None,
    num_groups: int = 1,
) -> Iterator[Measured]:
    """Measure every chain that the rules come to, at every size, one after the other.

    Args:
        rules: By name.
        sizes: Lengths of the vectors.
        repeats: Samples of each way; the plain way, which is slow, gets at most 3.
        tell: Is given a line about what is being measured.
        num_groups: Measures beside it the same in so many parameter groups of equal size.
    """
    groups: list[tuple[Rule, list[str]]] = []
    for name, rule in rules.items():
        same = [names for other, names in groups if acting_parts(other) == acting_parts(rule)]
        if same:
            same[0].append(name)
        else:
            groups.append((rule, [name]))
    for num_params in sizes:
        bench = _Bench(num_params, repeats, num_groups)
        for rule, names in groups:
            tell(f"{num_params} parameters: {', '.join(names)}")
            yield replace(bench.measure(rule), rules=tuple(names))


class _Bench:
    """The vectors of one size, laid out as a server has them, and the triad on others."""

    def __init__(self, num_params: int, repeats: int, num_groups: int = 1) -> None:
        self._repeats = repeats
        self._stretches = _equal_stretches(num_params, num_groups)
        generator = torch.Generator().manual_seed(0)
        self._params = zeros(num_params).normal_(generator=generator)
        self._snapshot = zeros_beside(self._params, 1)
        self._grad = zeros_beside(self._params, 2)
        self._grad.normal_(generator=generator)
        self._triad = _triad(num_params)

    def measure(self, rule: Rule) -> Measured:
        started = time.perf_counter()
        chain = Chain(rule, self._params, 1, fuse="compiled")
        prepare_s = time.perf_counter() - started
        blocks = Chain(rule, self._params, 1, fuse="blocks")
        plain = Chain(rule, self._params, 1, fuse="plain")
        if chain.vectors_moved is None:
            raise AssertionError(f"no graph of {rule}")
        triad_s: list[float] = []
        update_s: list[float] = []
        blocks_s: list[float] = []
        grouped_s: list[float] = []
        grouped = None
        if len(self._stretches) > 1:
            grouped = Chain(rule, self._params, 1, fuse="compiled", stretches=self._stretches)
        for _ in range(self._repeats):
            triad_s.append(_sample(self._triad))
            update_s.append(self._sample(chain))
            if grouped is not None:
                grouped_s.append(self._sample(grouped))
            blocks_s.append(self._sample(blocks))
        per_vector = chain.vectors_moved / TRIAD_VECTORS
        ratios = [per_vector * t / u for t, u in zip(triad_s, update_s, strict=True)]
        return Measured(
            rules=(),
            num_params=self._params.numel(),
            kernel=chain.kernel,
            vectors_moved=chain.vectors_moved,
            update_s=Spread.of(update_s),
            blocks_s=Spread.of(blocks_s),
            plain_s=Spread.of([self._sample(plain) for _ in range(min(3, self._repeats))]),
            triad_s=Spread.of(triad_s),
            update_over_triad=Spread.of(ratios),
            prepare_s=prepare_s,
            groups=len(self._stretches),
            grouped_s=Spread.of(grouped_s) if grouped_s else None,
            grouped_over_one=Spread.of([g / u for g, u in zip(grouped_s, update_s, strict=True)])
            if grouped_s
            else None,
        )

    def _sample(self, chain: Chain) -> float:
        # Weights near those sent: what repeated updates made of them must not become special.
        torch.add(self._grad, 1.0, out=self._params)
        self._snapshot.copy_(self._grad)
        return _sample(lambda: chain.apply(self._params, self._grad, self._snapshot, _FACTS))


def _equal_stretches(size: int, count: int) -> list[Stretch]:
    """Cut a vector into groups on 64-byte boundaries, each with factors of its own."""
    cuts = [*(size * n // count // ALIGN * ALIGN for n in range(count)), size]
    return [
        Stretch(begin, end, lr=1.0 + number, weight_decay=1.0 + number)
        for number, (begin, end) in enumerate(pairwise(cuts))
    ]


def _triad(num_params: int) -> Callable[[], object]:
    """``a = b + s * c`` through the same compiler, on vectors of its own."""

    def step(
        a: Tensor, b: Tensor, c: Tensor, numbers: Tensor, *state: Tensor
    ) -> tuple[Tensor, ...]:
        return b + c * numbers[0], c

    a = zeros(num_params)
    b, c = (zeros_beside(a, lane).fill_(lane) for lane in (1, 2))
    run = fuse(step, a, num_numbers=1, num_state=0, way="compiled").run
    numbers = torch.tensor([0.5])
    return lambda: run(a, b, c, numbers)


def _sample(call: Callable[[], object]) -> float:
    """Seconds of a call, over as many as take ``_LEAST_S``, after one that is not counted."""
    call()
    calls = 1
    while True:
        started = time.perf_counter()
        for _ in range(calls):
            call()
        spent = time.perf_counter() - started
        if spent >= _LEAST_S:
            return spent / calls
        calls *= 2
