"""A stretch of the flat vector that one update treats alike, and a rule at work on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from mpi_dcasgd.rules.part import Facts, Lanes, Part
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.rules.weight_decay import WeightDecay


@dataclass(frozen=True)
class Stretch:
    """Neighbouring elements of a vector with factors of their own.

    Everything else about an update is the same for all stretches: the staleness, the version, and
    the norm of the gradient, which is that of the whole vector.

    Attributes:
        begin, end: First element, and the one after the last.
        lr: Factor of the learning rate.
        weight_decay: Factor of the weight decay's rate.
    """

    begin: int
    end: int
    lr: float = 1.0
    weight_decay: float = 1.0

    def rule(self, rule: Rule) -> Rule:
        """Return the rule with this stretch's rate of weight decay."""
        if self.weight_decay == 1.0:
            return rule
        decay = rule.weight_decay
        return replace(rule, weight_decay=replace(decay, rate=decay.rate * self.weight_decay))

    def facts(self, facts: Facts) -> Facts:
        """Return what parts are told about a push: its learning rates are those of the stretch."""
        return facts._replace(lr=facts.lr * self.lr, lr_max=facts.lr_max * self.lr)


class StretchStep:
    """The arithmetic of a rule on one stretch.

    Args:
        rule: The parts.
        stretch: Where, and with what factors.
        num_workers: How many workers push.

    Attributes:
        rule: The parts, with this stretch's rate of weight decay.
        parts: (role, part) of those that compute or remember something here.
        num_numbers: Length of ``numbers``.
        num_vectors: Number of state vectors.
    """

    def __init__(self, rule: Rule, stretch: Stretch, num_workers: int) -> None:
        self.stretch = stretch
        self.rule = stretch.rule(rule)
        self.parts = acting_parts(self.rule)
        self.looks_ahead = any(type(part).sent is not Part.sent for _, part in self.parts)
        example = _example(num_workers)
        self._counts = [(len(part.scalars(example)), len(part.vectors())) for _, part in self.parts]
        self.num_numbers = 1 + sum(scalars for scalars, _ in self._counts) + self.looks_ahead
        self.num_vectors = sum(vectors for _, vectors in self._counts)

    def numbers(self, facts: Facts, rate: float | None = None) -> list[float]:
        """Return what the step reads of a push: the step size, then the scalars of every part.

        Last, where a part looks ahead, comes the rate that it does so with.

        Args:
            facts: Of the push.
            rate: Rate to look ahead with, before the factor of the stretch; None for this push's.
        """
        facts = self.stretch.facts(facts)
        found = [rate_of(self.rule, facts)]
        found += [number for _, part in self.parts for number in part.scalars(facts)]
        if self.looks_ahead:
            found.append(lasting_rate(self.rule, facts) if rate is None else rate * self.stretch.lr)
        return found

    def step(
        self, params: Tensor, grad: Tensor, snapshot: Tensor, numbers: Tensor, *state: Tensor
    ) -> tuple[Tensor, ...]:
        """New params, new snapshot, new state: the whole rule for a piece of the stretch."""
        lanes = Lanes(grad, grad, params, snapshot)
        new_state: list[Tensor] = []
        if self.parts:
            for part, scalars, old in self.shares(numbers, state):
                lanes, new = part.update(lanes, old, scalars)
                new_state += new
        new_params = params - lanes.direction * numbers[0]
        if not self.looks_ahead:
            return new_params, new_params, *new_state
        return new_params, self.sent(new_params, numbers, tuple(new_state)), *new_state

    def sent(self, params: Tensor, numbers: Tensor, state: tuple[Tensor, ...]) -> Tensor:
        """Return what a worker is sent instead of ``params``, after the update."""
        value = params
        for part, scalars, vectors in self.shares(numbers, state):
            value = part.sent(value, vectors, scalars, numbers[-1])
        return value

    def shares(
        self, numbers: Tensor, state: tuple[Tensor, ...]
    ) -> Iterator[tuple[Part, tuple[Tensor, ...], tuple[Tensor, ...]]]:
        """Return every part, in the order in which they act, with its scalars and its state."""
        scalars = numbers.unbind()
        first_number, first_vector = 1, 0
        for (_, part), (num_scalars, num_vectors) in zip(self.parts, self._counts, strict=True):
            end_number, end_vector = first_number + num_scalars, first_vector + num_vectors
            yield part, scalars[first_number:end_number], state[first_vector:end_vector]
            first_number, first_vector = end_number, end_vector


def rate_of(rule: Rule, facts: Facts) -> float:
    """Return the step size of a push: the schedule's rate times the rule's factor."""
    return facts.lr * rule.step_size.factor(facts)


def lasting_rate(rule: Rule, facts: Facts) -> float:
    """Return the rate that does not depend on the staleness of a single push."""
    return facts.lr * rule.step_size.lasting(facts)


def merged(stretches: Sequence[Stretch]) -> tuple[Stretch, ...]:
    """Join neighbours with equal factors: every stretch costs an update some calls.

    >>> merged([Stretch(0, 16), Stretch(16, 48), Stretch(48, 64, lr=0.1)])
    (Stretch(begin=0, end=48, lr=1.0, weight_decay=1.0), \
Stretch(begin=48, end=64, lr=0.1, weight_decay=1.0))
    """
    found: list[Stretch] = []
    for one in stretches:
        last = found[-1] if found else None
        if last and (last.end, last.lr, last.weight_decay) == (one.begin, one.lr, one.weight_decay):
            found[-1] = replace(last, end=one.end)
        else:
            found.append(one)
    return tuple(found)


def acting_parts(rule: Rule) -> tuple[tuple[str, Part], ...]:
    """(role, part) of the parts that compute or remember something; the pass is made of these."""
    return tuple((role, part) for role, part in rule.parts() if _acts(part))


def _acts(part: Part) -> bool:
    if isinstance(part, WeightDecay) and part.rate == 0:
        return False
    return type(part).update is not Part.update


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
