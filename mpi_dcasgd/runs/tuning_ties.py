"""The best of the settings that were tried, and what decided where several were equally good."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mpi_dcasgd.config.tuning import Candidate
from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.wording import counted


@dataclass(frozen=True)
class Scored:
    """A setting that can win.

    Attributes:
        candidate: The setting and its run.
        final: Final value of the primary metric on the split.
        time_s: Time to the target; None where that does not choose.
    """

    candidate: Candidate
    final: float
    time_s: float | None = None

    @property
    def score(self) -> float:
        """The number by which the setting is chosen."""
        return self.final if self.time_s is None else self.time_s


@dataclass(frozen=True)
class Tie:
    """Several settings that were equally good by what they are chosen by.

    Attributes:
        settings: Their number.
        by_final: True if the better final value decided; else the first was taken.
    """

    settings: int
    by_final: bool

    def text(self, runs: int) -> str:
        """Say so, of so many runs."""
        how = "the better final value decided" if self.by_final else "the first was taken"
        return f"{self.settings} of {counted(runs, 'setting')} tied; {how}"


def best_of(scored: Sequence[Scored], measures: Measures) -> tuple[Scored | None, Tie | None]:
    """Choose the best, and say what decided a tie.

    Of settings with equal times the one with the better final value is chosen, and of those that
    are still equal the first: evaluations are coarse, and in the simulator times are equal to the
    last bit.

    Args:
        scored: In order; all with a time, or none.
        measures: The primary metric and its direction.
    """
    if not scored:
        return None, None
    finals = max if measures.higher_is_better else min
    timed = [one.time_s for one in scored if one.time_s is not None]
    goal = min(timed) if timed else finals(one.final for one in scored)
    tied = [one for one in scored if math.isclose(one.score, goal, rel_tol=1e-9)]
    goal = finals(one.final for one in tied)
    best = [one for one in tied if math.isclose(one.final, goal, rel_tol=1e-9)]
    tie = Tie(len(tied), by_final=len(best) == 1) if len(tied) > 1 else None
    return best[0], tie
