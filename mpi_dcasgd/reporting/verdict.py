"""The verdict: who won, by how much and how surely, in sentences made by stated rules.

A row is ranked by the mean over its runs, if all of them have a value. The first wins if its
difference to every other row, paired by seed, has an interval above 0.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mpi_dcasgd.reporting.collect import RunResult
from mpi_dcasgd.reporting.groups import Group
from mpi_dcasgd.reporting.paired import Difference, paired
from mpi_dcasgd.wording import counted

_NAMED = 3
"""Rows that a sentence names; the others are counted."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """A quantity that rows are ranked by.

    Attributes:
        name: In a sentence after "By".
        value: Of one run; None if it has none.
        show: A value in words, with its unit.
        show_difference: A difference in words, with its unit.
        without: Say of rows that cannot be ranked why not.
        higher_is_better: Its direction.
    """

    name: str
    value: Callable[[RunResult], float | None]
    show: Callable[[float], str]
    show_difference: Callable[[float], str]
    without: str
    higher_is_better: bool = False

    def by_seed(self, group: Group) -> dict[int, float]:
        """Value for each seed, the mean where a seed was run more than once."""
        found: dict[int, list[float]] = {}
        for run in group.runs:
            value = self.value(run)
            if value is not None and math.isfinite(value):
                found.setdefault(run.seed, []).append(value)
        return {seed: statistics.fmean(values) for seed, values in found.items()}

    def complete(self, group: Group) -> bool:
        """Return whether every run of a row has a value."""
        values = [self.value(run) for run in group.runs]
        return all(value is not None and math.isfinite(value) for value in values)


@dataclass(frozen=True, slots=True)
class Ranked:
    """A row in the order of a criterion.

    Attributes:
        group: The row.
        mean: Over its seeds.
        behind: By how much it is worse than the first, paired by seed; None for the first, and
            where no seed is shared.
    """

    group: Group
    mean: float
    behind: Difference | None = None

    @property
    def clear(self) -> bool:
        """True if the first is better beyond noise."""
        return self.behind is not None and self.behind.above_0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Rows in order, by one criterion.

    Attributes:
        criterion: What they are ranked by.
        ranked: Best first.
        left_out: Rows of which a run has no value.
    """

    criterion: Criterion
    ranked: tuple[Ranked, ...]
    left_out: tuple[Group, ...]

    @property
    def winner(self) -> Group | None:
        """The row that is better than all others beyond noise; None if there is none."""
        first, *others = self.ranked or (None,)
        if first is None or not others or not all(other.clear for other in others):
            return None
        return first.group

    def sentence(self) -> str:
        """The verdict in words.

        Returns:
            One to three sentences.
        """
        parts = [f"By {self.criterion.name}: {self._order()}"]
        if self.left_out:
            parts.append(f"{self.criterion.without}: {_names(self.left_out)}.")
        return " ".join(parts)

    def _order(self) -> str:
        if not self.ranked:
            return "no winner."
        first, *others = self.ranked
        shown = f"{called(first.group)} ({self.criterion.show(first.mean)})"
        if not others:
            return f"{shown} is the only row that can be ranked."
        nearest = others[0]
        if _equal(nearest, first) and not nearest.clear:
            tied = [other.group for other in self.ranked if _equal(other, first)]
            near = [o.group for o in others if not (o.clear or _equal(o, first))]
            noise = f" Not told apart from them: {_names(near)}." if near else ""
            tie = f"a tie at {self.criterion.show(first.mean)} of {_names(tied)}."
            return f"{tie}{noise}{self._rest()}"
        if self.winner is not None:
            return f"{shown} wins. Next is {self._by_how_much(nearest)}."
        if not any(other.behind and other.behind.claimed for other in others):
            reason = "one seed each" if all(o.behind for o in others) else "no seed in common"
            return (
                f"{shown} is first, then {called(nearest.group)}"
                f" ({self.criterion.show(nearest.mean)}); {reason}, so no interval is claimed and"
                " the order may be chance."
            )
        return f"no clear winner. {shown} is first, but {self._noise()}.{self._rest()}"

    def _noise(self) -> str:
        unclear = [other for other in self.ranked[1:] if not other.clear]
        names = _names([other.group for other in unclear])
        verb = "is" if len(unclear) == 1 else "are"
        known = next((o for o in unclear if o.behind and o.behind.claimed), None)
        return f"{names} {verb} within noise of it" + (
            f": {self._by_how_much(known)}" if known else ""
        )

    def _rest(self) -> str:
        clear = [other.group for other in self.ranked[1:] if other.clear]
        return f" Behind it beyond noise: {_names(clear)}." if clear else ""

    def _by_how_much(self, other: Ranked) -> str:
        difference = other.behind
        if difference is None:
            return f"{called(other.group)} with {self.criterion.show(other.mean)}"
        show = self.criterion.show_difference
        sign = -1 if self.criterion.higher_is_better else 1
        word = "less" if sign * difference.mean < 0 else "more"
        text = (
            f"{called(other.group)} ({self.criterion.show(other.mean)}),"
            f" {show(abs(difference.mean))} {word}"
        )
        if difference.low is None or difference.high is None:
            return f"{text} (one seed)"
        low, high = sorted((sign * difference.low, sign * difference.high))
        return (
            f"{text} (95 % interval {_range(low, high, show)}; {counted(difference.seeds, 'seed')})"
        )


def _equal(one: Ranked, other: Ranked) -> bool:
    # A mean of thirds is not the same to the last bit in every order of its runs.
    return math.isclose(one.mean, other.mean, rel_tol=1e-9)


def judge(groups: Sequence[Group], criterion: Criterion) -> Verdict:
    """Rank rows.

    Args:
        groups: All of them.
        criterion: What they are ranked by.
    """
    complete = [group for group in groups if criterion.complete(group)]
    sign = -1 if criterion.higher_is_better else 1
    values = {id(group): criterion.by_seed(group) for group in complete}
    means = {key: statistics.fmean(of.values()) for key, of in values.items()}
    complete.sort(key=lambda group: sign * means[id(group)])
    ranked = []
    for place, group in enumerate(complete):
        behind = paired(values[id(group)], values[id(complete[0])]) if place else None
        if behind is not None and criterion.higher_is_better:
            behind = _negated(behind)
        ranked.append(Ranked(group, means[id(group)], behind))
    left_out = tuple(group for group in groups if id(group) not in values)
    return Verdict(criterion, tuple(ranked), left_out)


def _negated(difference: Difference) -> Difference:
    low = None if difference.high is None else -difference.high
    high = None if difference.low is None else -difference.low
    return Difference(-difference.mean, low, high, difference.seeds)


def _range(low: float, high: float, show: Callable[[float], str]) -> str:
    """Both ends of an interval, with a unit that they share said once."""
    ends = [_signed(value, show) for value in (low, high)]
    (first, _, unit), (_, _, other) = (end.partition(" ") for end in ends)
    return f"{first if unit == other else ends[0]} to {ends[1]}"


def _signed(value: float, show: Callable[[float], str]) -> str:
    return f"{'-' if value < 0 else ''}{show(abs(value))}"


def called(group: Group) -> str:
    """The name of a row in a sentence: ``asgd with 8 workers``; a longer one is quoted."""
    name, *rest = group.label.split(", ")
    if group.manner in rest:
        rest.remove(group.manner)
        name = f"{group.manner} {name}"
    if len(rest) > 1:
        return f'"{group.label}"'
    return f"{name} with {rest[0]}" if rest else name


def _names(groups: Sequence[Group]) -> str:
    if len(groups) > _NAMED + 1:  # "and 1 more" is no shorter than its name
        named = [called(group) for group in groups[:_NAMED]]
        return f"{', '.join(named)} and {len(groups) - _NAMED} more"
    named = [called(group) for group in groups]
    return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
