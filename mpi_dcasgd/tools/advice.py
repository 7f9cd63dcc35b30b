"""From simulated runs to advice: which algorithm, with how many workers, and what it gains.

All runs have the same budget of samples and the same seeds. They are ranked by the time to a
target, and compared seed by seed: equal seeds have equal delays and equal minibatches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, geometric_mean

from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.wording import counted

PAYS = 1.1
"""More workers pay where the time to the target falls by this factor or more."""

TARGET_SHARE = 0.75
"""The target is what one worker has reached after this share of the budget."""

Value = tuple[float, float, float]
"""Samples, seconds and the primary metric at an evaluation."""


@dataclass(frozen=True)
class Course:
    """One run: its evaluations, in order.

    Attributes:
        seed: The job's.
        values: Samples, seconds and metric of each; none if the run diverged.
        staleness: Its mean; None if there is none.
    """

    seed: int
    values: tuple[Value, ...]
    staleness: float | None = None


@dataclass(frozen=True)
class Tried:
    """One algorithm with one number of workers, on every seed.

    Attributes:
        algorithm: Its name.
        workers: How many, without the server.
        courses: One for each seed, in the order of the seeds.
    """

    algorithm: str
    workers: int
    courses: tuple[Course, ...]

    def __str__(self) -> str:
        return f"{self.algorithm} with {counted(self.workers, 'worker')}"


@dataclass(frozen=True)
class Row:
    """Outcome of one of them.

    Attributes:
        tried: Which.
        times_s: Time to the target by seed; infinite where it was not reached.
        time_s: Their geometric mean; infinite unless every seed reached it.
        last: Mean of the metric at the end of the budget; not a number where a run diverged.
        staleness: Mean; None if there is none.
    """

    tried: Tried
    times_s: tuple[float, ...]
    last: float
    staleness: float | None

    @property
    def time_s(self) -> float:
        return geometric_mean(self.times_s) if max(self.times_s) < math.inf else math.inf

    def over(self, other: Row) -> tuple[float, float, float]:
        """Time over another's, seed by seed: geometric mean, least and most."""
        ratios = [mine / its for mine, its in zip(self.times_s, other.times_s, strict=True)]
        return geometric_mean(ratios), min(ratios), max(ratios)


@dataclass(frozen=True)
class Ranking:
    """Advice, and what it is from.

    Attributes:
        measures: The metric that counts.
        target: Its value that is to be reached.
        one: One worker alone.
        rows: All that was tried, in order.
        take: What to take, ``one`` if it is the soonest; None if nothing else reached the target
            on every seed.
        rival: The next best of another algorithm; None if no other reached the target.
        sentences: The advice.
    """

    measures: Measures
    target: float
    one: Row
    rows: tuple[Row, ...]
    take: Row | None
    rival: Row | None
    sentences: tuple[str, ...]


def target_of(one: Tried, measures: Measures) -> float:
    """Return what one worker has reached on every seed after three quarters of the budget."""
    reached = []
    for course in one.courses:
        end = course.values[-1][0] if course.values else 0
        early = [value for value in course.values if value[0] <= TARGET_SHARE * end]
        best = measures.best(early or course.values, lambda value: value[2])
        reached.append(math.nan if best is None else best[2])
    if any(map(math.isnan, reached)):
        return math.nan
    return min(reached) if measures.higher_is_better else max(reached)


def ranked(
    one: Tried, tried: Sequence[Tried], measures: Measures, target: float | None = None
) -> Ranking:
    """Rank what was tried by the time to a target, and say what to take.

    Args:
        one: One worker alone, with the same seeds and budget.
        tried: All else, each with the seeds in the same order.
        measures: The metric that counts.
        target: A value of it; None for ``target_of``.
    """
    wanted = target_of(one, measures) if target is None else target
    alone = _row(one, wanted, measures)
    rows = tuple(_row(each, wanted, measures) for each in tried)
    reached = [row for row in rows if row.time_s < math.inf]
    if math.isnan(wanted):
        lost = (
            "No advice: one worker alone diverged, so there is nothing to aim at; lower the "
            "learning rate, or give a target."
        )
        return Ranking(measures, wanted, alone, rows, None, None, (lost,))
    if not reached:
        nothing = _nothing(rows, measures, wanted)
        return Ranking(measures, wanted, alone, rows, None, None, (nothing,))
    fastest = min(reached, key=lambda row: row.time_s)
    if alone.time_s <= fastest.time_s:
        single = _single(alone, fastest, measures, wanted)
        return Ranking(measures, wanted, alone, rows, alone, fastest, (single,))
    take = _enough(fastest, reached)
    others = [row for row in reached if row.tried.algorithm != take.tried.algorithm]
    rival = min(others, key=lambda row: row.time_s, default=None)
    if rival is not None:
        rival = _enough(rival, reached)
    said = (
        _take(take, alone, measures, wanted),
        _gain(take, rival, rows),
        _scaling(take, rows),
    )
    return Ranking(measures, wanted, alone, rows, take, rival, said)


def _row(tried: Tried, target: float, measures: Measures) -> Row:
    times = [
        next((time_s for _, time_s, value in c.values if measures.reached(value, target)), math.inf)
        for c in tried.courses
    ]
    lasts = [course.values[-1][2] if course.values else math.nan for course in tried.courses]
    stale = [course.staleness for course in tried.courses if course.staleness is not None]
    return Row(tried, tuple(times), fmean(lasts), fmean(stale) if stale else None)


def _enough(best: Row, reached: Sequence[Row]) -> Row:
    """The fewest workers of the same algorithm that are nearly as soon as the best number."""
    same = [row for row in reached if row.tried.algorithm == best.tried.algorithm]
    near = [row for row in same if row.time_s < PAYS * best.time_s]
    return min(near, key=lambda row: row.tried.workers)


def _nothing(rows: Sequence[Row], measures: Measures, target: float) -> str:
    some = [row for row in rows if min(row.times_s) < math.inf]
    seeds = f" (on some seeds: {', '.join(str(row.tried) for row in some)})" if some else ""
    return (
        f"Take one worker: nothing else reached {_goal(measures, target)} on every seed{seeds}. A "
        "lower learning rate, more epochs or fewer workers may; mpi-dcasgd sharpness and stability "
        "say which rates are stable."
    )


def _single(alone: Row, fastest: Row, measures: Measures, target: float) -> str:
    ratio, least, most = fastest.over(alone)
    return (
        f"Take one worker: {_goal(measures, target)} after {alone.time_s:.4g} s{_range(alone)}; "
        f"the soonest of all others, {fastest.tried}, takes {ratio:.2f} times as long "
        f"({least:.2f} to {most:.2f} by seed)."
    )


def _take(take: Row, alone: Row, measures: Measures, target: float) -> str:
    text = f"Take {take.tried}: {_goal(measures, target)} after {take.time_s:.4g} s{_range(take)}"
    if alone.time_s == math.inf:
        return f"{text}; one worker alone does not reach it."
    ratio, least, most = alone.over(take)
    return f"{text}, {ratio:.2f} times sooner than one worker alone ({least:.2f} to {most:.2f})."


def _gain(take: Row, rival: Row | None, rows: Sequence[Row]) -> str:
    others = {row.tried.algorithm for row in rows} - {take.tried.algorithm}
    if rival is None:
        if not others:
            return "No other algorithm was tried."
        return f"No other algorithm reached it on every seed ({', '.join(sorted(others))})."
    ratio, least, most = rival.over(take)
    spread = f"({least:.2f} to {most:.2f} by seed)"
    if least <= 1 <= most:
        return (
            f"The next best is {rival.tried}, {ratio:.2f} times as long {spread}: within the spread"
            " of the seeds, so either will do."
        )
    if ratio < 1:
        return f"{rival.tried} is sooner, {ratio:.2f} times as long {spread}, with more workers."
    return f"The next best is {rival.tried}, {ratio:.2f} times as long {spread}."


def _scaling(take: Row, rows: Sequence[Row]) -> str:
    workers, alone = counted(take.tried.workers, "worker"), take.tried.workers == 1
    same = [row for row in rows if row.tried.algorithm == take.tried.algorithm]
    more = sorted(
        (row for row in same if row.tried.workers > take.tried.workers),
        key=lambda row: row.tried.workers,
    )
    if not more:
        most = "is the most that was tried" if alone else "are the most that were tried"
        return f"{workers} {most}; more may pay."
    shown = []
    for row in more:
        if max(row.times_s) == math.inf:
            shown.append(f"{row.tried.workers} do not reach it on every seed")
        else:
            shown.append(f"{row.tried.workers} need {row.over(take)[0]:.2f} times as long")
    return (
        f"More than {workers} {'does' if alone else 'do'} not pay: {', '.join(shown)} "
        f"(to pay is to take at most 1/{PAYS} of the time)."
    )


def _goal(measures: Measures, target: float) -> str:
    return f"{measures.primary} {measures.shown(measures.primary, target)} or better"


def _range(row: Row) -> str:
    seeds = counted(len(row.times_s), "seed")
    return f" ({min(row.times_s):.4g} to {max(row.times_s):.4g} over {seeds})"
