"""Laws of a single part, seen from outside: numbers in, numbers out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from mpi_dcasgd.rules.admission import Admission
from mpi_dcasgd.rules.part import Facts, Lanes, Part
from mpi_dcasgd.rules.step_size import StepSize
from mpi_dcasgd.tools.conformance.law import DoesNotApply, Law, require

SIZE = 10


def _some_facts() -> Iterator[Facts]:
    for staleness, version, num_workers, rate in itertools.product(
        (0, 1, 7, 1000), (0, 1, 5000), (1, 2, 64), (0.0, 0.1)
    ):
        if staleness <= version:
            yield Facts(
                lr=rate,
                lr_max=rate,
                staleness=staleness,
                version=version,
                worker=num_workers - 1,
                num_workers=num_workers,
                grad_norm=2.5,
            )


_FACTS = Facts(lr=0.1, lr_max=0.2, staleness=2, version=9, worker=1, num_workers=3, grad_norm=2.5)


class _Case:
    """Lanes, state and scalars to call a part with; state is not negative (it may be a square)."""

    def __init__(self, part: Part, dtype: torch.dtype = torch.float64) -> None:
        generator = torch.Generator().manual_seed(1)

        def vector() -> Tensor:
            return torch.randn(SIZE, generator=generator, dtype=torch.float64).to(dtype)

        self.part = part
        grad = vector()
        self.lanes = Lanes(grad, grad.clone(), vector(), vector())
        self.state = tuple(vector().abs() for _ in part.vectors())
        # As in the chain, where scalars are elements of one small vector.
        self.scalars = tuple(torch.tensor(part.scalars(_FACTS), dtype=dtype).unbind())

    def update(self) -> tuple[Tensor, ...]:
        lanes, state = self.part.update(self.lanes, self.state, self.scalars)
        return (*lanes, *state)

    def sent(self) -> Tensor:
        rate = torch.tensor(0.1, dtype=self.lanes.params.dtype)
        return self.part.sent(self.lanes.params, self.state, self.scalars, rate)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return (*self.lanes, *self.state, *self.scalars)

    def at(self, where: Tensor) -> _Case:
        """The same with elements chosen or permuted."""
        case = _Case(self.part)
        case.lanes = Lanes(*(lane[where] for lane in self.lanes))
        case.state = tuple(vector[where] for vector in self.state)
        return case


def _writes_no_input(part: Part) -> None:
    """``update`` or ``sent`` wrote into a tensor that it was given."""
    case = _Case(part)
    before = [tensor.clone() for tensor in case.inputs]
    case.update()
    case.sent()
    for name, tensor, old in zip(_names(part), case.inputs, before, strict=True):
        require(torch.equal(tensor, old), f"{name} was changed in place")


def _names(part: Part) -> list[str]:
    state = [f"state {vector.name}" for vector in part.vectors()]
    return [*Lanes._fields, *state, *(f"scalar {n}" for n in range(len(part.scalars(_FACTS))))]


def _keeps_nothing(part: Part) -> None:
    """The part remembers something that is not in its state vectors, or is not deterministic."""
    before = repr(part)
    case = _Case(part)
    first, _, second = case.update(), _Case(part, torch.float32).update(), case.update()
    same = all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    require(same, "the same call gave something else the second time")
    require(repr(part) == before, f"its settings changed from {before} to {part!r}")
    require(part.scalars(_FACTS) == part.scalars(_FACTS), "its scalars changed")


def _elementwise(part: Part) -> None:
    """An element of the result depends on other elements."""
    case = _Case(part)
    for where in (torch.tensor([3, 0, 9, 1, 2, 8, 7, 6, 5, 4]), torch.arange(4)):
        chosen = case.at(where)
        for whole, some in zip(
            (*case.update(), case.sent()), (*chosen.update(), chosen.sent()), strict=True
        ):
            require(
                torch.allclose(whole[where], some, rtol=1e-12, atol=0.0, equal_nan=True),
                f"of {len(where)} elements, chosen or permuted, came something else",
            )


def _keeps_type(part: Part) -> None:
    """A result has another type or shape than what went in."""
    for dtype in (torch.float32, torch.float64):
        case = _Case(part, dtype)
        for tensor in (*case.update(), case.sent()):
            require(
                tensor.dtype == dtype and tensor.shape == (SIZE,),
                f"returned {tensor.dtype} of shape {tuple(tensor.shape)} for {dtype} ({SIZE},)",
            )


def _returns_its_state(part: Part) -> None:
    """``update`` does not return one vector for each that ``vectors`` names."""
    named = [vector.name for vector in part.vectors()]
    require(len(set(named)) == len(named), f"two state vectors of one name: {named}")
    returned = len(_Case(part).update()) - len(Lanes._fields)
    require(returned == len(named), f"returned {returned} state vectors, vectors() has {named}")


def _has_finite_scalars(part: Part) -> None:
    """A scalar is NaN or infinite, or their number depends on the push."""
    expected = len(part.scalars(_FACTS))
    for facts in _some_facts():
        scalars = part.scalars(facts)
        require(len(scalars) == expected, f"{len(scalars)} scalars, else {expected}: {facts}")
        require(all(math.isfinite(s) for s in scalars), f"scalars {scalars} for {facts}")


def _lets_a_run_end(part: Part) -> None:
    """A gradient that can be no fresher is dropped, or the slowest worker has to wait."""
    if not isinstance(part, Admission):
        raise DoesNotApply("it is no admission part")
    for facts in _some_facts():
        fresh = facts._replace(staleness=0)
        require(part.verdict(fresh) in ("apply", "hold"), f"dropped a fresh gradient: {fresh}")
    for clock, others in ((0, []), (5, []), (3, [3, 4]), (0, [7, 9])):
        require(part.may_go_on(clock, others), f"clock {clock} must wait for {others or 'nobody'}")
    for num_workers in (1, 4):
        require(part.collect(num_workers) >= 1, f"collects {part.collect(num_workers)} gradients")


def _steps_are_sound(part: Part) -> None:
    """A factor is negative or not finite, grows with staleness, or changes a lone worker's step."""
    if not isinstance(part, StepSize):
        raise DoesNotApply("it is no step size")
    for facts in _some_facts():
        factor = part.factor(facts)
        staler = part.factor(facts._replace(staleness=facts.staleness + 1))
        require(math.isfinite(factor) and factor >= 0, f"factor {factor} for {facts}")
        require(staler <= factor, f"factor {factor} grew to {staler} with staleness: {facts}")
    alone = part.factor(_FACTS._replace(staleness=0, worker=0, num_workers=1))
    require(alone == 1.0, f"factor {alone} for a fresh gradient of a single worker")


def _frozen(part: Part) -> None:
    """Two parts with the same settings are not the same, so a run cannot be described."""
    require(replace(part) == part, f"{part!r} is not equal to a copy of itself")


PART_LAWS: tuple[Law[Part], ...] = (
    Law("a part writes none of its inputs", _writes_no_input),
    Law("a part keeps nothing but its state vectors", _keeps_nothing),
    Law("a part is elementwise", _elementwise),
    Law("a part keeps type and shape", _keeps_type),
    Law("a part returns its state vectors", _returns_its_state),
    Law("a part's scalars are finite", _has_finite_scalars),
    Law("a part is its settings", _frozen),
    Law("admission lets a run end", _lets_a_run_end),
    Law("a step size is sound", _steps_are_sound),
)
"""All laws of a part, in the order of reports."""
