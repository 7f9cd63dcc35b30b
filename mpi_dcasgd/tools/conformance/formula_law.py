"""The law that a target does what its formula says."""

from __future__ import annotations

import numpy as np
import torch

from mpi_dcasgd.tools.conformance.driving import LR, PUSHES, SIZE, random_picks, random_vectors
from mpi_dcasgd.tools.conformance.formula import FormulaServer, Vector
from mpi_dcasgd.tools.conformance.law import DoesNotApply, Law, Violation, require
from mpi_dcasgd.tools.conformance.servers import RuleServer, Server, may_push
from mpi_dcasgd.tools.conformance.targets import Target

TOLERANCE = 1e-9
"""Of an element's largest value so far; both sides compute in float64."""

_WORKERS = (1, 3)
_SCALES = np.logspace(0.5, -8, SIZE)
"""From elements that a constant such as eps does not reach to those that it decides about."""


def _follows_its_formula(target: Target) -> None:
    """A push did something else to the weights than the formula of the rule."""
    if target.formula is None:
        raise DoesNotApply(target.no_formula)
    for num_workers in _WORKERS:
        _compare(target, num_workers)


def _rate(taken: int) -> float:
    # Up and down again, so that the largest rate so far is not the present one.
    return LR * (0.3 + (taken % 7) / 7)


def _compare(target: Target, num_workers: int) -> None:
    assert target.formula is not None  # the caller has looked
    start: Vector = random_vectors(31, SIZE).numpy() * _SCALES
    mine: Server
    if target.rule is None:
        mine = target.make(torch.from_numpy(start.copy()), num_workers, LR)
        theirs = FormulaServer(target.formula(), start, num_workers, lambda taken: LR)
    else:
        mine = RuleServer(target.rule, torch.from_numpy(start.copy()), num_workers, _rate)
        theirs = FormulaServer(target.formula(), start, num_workers, _rate)
    both = _Both(mine, theirs, start)
    late = num_workers - 1 if num_workers > 1 else None
    for worker in range(num_workers):
        if worker != late:
            both.pull(worker)
    for number, pick in enumerate(random_picks(33)):
        if number == 4 and late is not None:
            both.pull(late)  # when others have made updates already
        both.push(number, pick)


class _Both:
    """A target and its formula, moved together and compared after each event."""

    def __init__(self, mine: Server, theirs: FormulaServer, start: Vector) -> None:
        self._mine, self._theirs = mine, theirs
        self._noise: Vector = random_vectors(32, PUSHES, SIZE).numpy()
        self._largest = np.abs(start)
        self._pulled: list[int] = []
        # Asking a server of somebody else's is a pull, which renews that worker's backup.
        self._may_look = isinstance(mine, RuleServer)

    def pull(self, worker: int) -> None:
        """A worker asks for the first time."""
        self._theirs.join(worker)
        self._pulled.append(worker)
        self._require_same(worker, f"the first pull of worker {worker}", "")

    def push(self, number: int, pick: int) -> None:
        """One of those that have work delivers."""
        theirs = self._theirs
        able = [m for m in self._pulled if theirs.has_work(m)]
        asked = [m for m in self._pulled if may_push(self._mine, m)]
        require(asked == able, f"before push {number} workers {asked} had work, expected {able}")
        m = able[pick % len(able)]
        g = 0.7 * theirs.sent[m] + _SCALES * self._noise[number]
        what = f"push {number} (worker {m}, staleness {theirs.staleness(m)})"
        where = [("g", g), ("w", theirs.w), ("w_bak", theirs.sent[m])]
        theirs.push(m, g)
        self._mine.push(m, torch.from_numpy(g.copy()))
        self._largest = np.maximum(self._largest, np.abs(theirs.w))
        for other in self._pulled if self._may_look else [m]:
            if theirs.has_work(other):
                self._require_same(other, what, "; there ", where)

    def _require_same(
        self, worker: int, what: str, there: str, where: list[tuple[str, Vector]] | None = None
    ) -> None:
        seen: Vector = self._mine.pull(worker).detach().double().numpy()
        expected = self._theirs.sent[worker]
        require(seen.shape == expected.shape, f"{what}: shape {seen.shape}")
        apart = np.abs(seen - expected) / np.maximum(self._largest, np.abs(expected))
        element = int(np.argmax(np.where(np.isnan(apart), np.inf, apart)))
        if apart[element] <= TOLERANCE:  # False for NaN
            return
        values = ", ".join(f"{name} = {value[element]:.8g}" for name, value in where or ())
        raise Violation(
            f"{what}: element {element} of what worker {worker} is sent is {seen[element]:.10g}, "
            f"the formula says {expected[element]:.10g}{there}{values}"
        )


FORMULA_LAWS: tuple[Law[Target], ...] = (
    Law("it does what its formula says", _follows_its_formula),
)
"""The one law that knows a formula."""
