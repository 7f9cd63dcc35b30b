"""Warnings about a run as they happen: busy server, lagging worker, rate too large, loss stuck."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Any

from mpi_dcasgd.record.rate_limit import RateLimit
from mpi_dcasgd.record.steps import Load

BUSY = 0.9
"""Share of its time from which on a server is called saturated."""
LONG_S = 2e-3
"""Seconds of a push from which on its length is what takes time, which several servers divide."""
LAGS = 2.0
"""Times the usual step from which on a worker is said to lag."""
_ENOUGH = 8
"""Pushes of a usual worker, fewer of which prove nothing."""
_EVALUATIONS = 4
RATE = "lr too large"
"""Kind of the warning about a learning rate beyond the largest stable one."""
_FALLS = 0.98


@dataclass(frozen=True, slots=True)
class Warned:
    """One warning.

    Attributes:
        kind: ``server saturated``, ``worker 3 lags``, ``lr too large``, ``loss not falling`` or
            ``idle workers``.
        text: A sentence for people.
    """

    kind: str
    text: str


class Warnings:
    """Finds what people should know of a run, each thing once.

    Args:
        saved: What ``state_dict`` returned, if the run is resumed.

    Example:
        >>> load = Load(server=0.95, pushes=(50, 50, 50), steps_s=(1.0, 1.0, 1.0))
        >>> [warned.kind for warned in Warnings().of_load(load, passed_s=1.0)]
        ['server saturated']
    """

    def __init__(self, saved: Mapping[str, Any] | None = None) -> None:
        saved = saved or {}
        self._told: list[str] = list(saved.get("told", ()))
        self._load = Load(0.0, (), ())
        self._passed_s = saved.get("passed_s", 0.0)
        if "load" in saved:
            server, pushes, steps_s = saved["load"]
            self._load = Load(server, tuple(pushes), tuple(steps_s))

    def state_dict(self) -> dict[str, Any]:
        """Return what has been told, and the work that has not been judged, in plain values."""
        load = self._load
        return {
            "told": list(self._told),
            "passed_s": self._passed_s,
            "load": [load.server, list(load.pushes), list(load.steps_s)],
        }

    def once(self, warned: Warned) -> list[Warned]:
        """Take a warning that somebody else has found; return it if it is new."""
        return self._new([warned])

    def of_load(self, load: Load, passed_s: float) -> list[Warned]:
        """Take the work of so many seconds, and judge it with that before once it is enough."""
        load, passed_s = _sum(self._load, load), self._passed_s + passed_s
        if len(load.pushes) < 2 or median_low(load.pushes) < _ENOUGH:
            self._load, self._passed_s = load, passed_s
            return []
        self._load, self._passed_s = Load(0.0, (), ()), 0.0
        pairs = zip(load.pushes, load.steps_s, strict=True)
        steps_s = [step_s / count if count else math.nan for count, step_s in pairs]
        usual_s = median_low([step_s for step_s in steps_s if not math.isnan(step_s)])
        return self._new([*_saturated(load, passed_s, usual_s), *_lagging(load, steps_s, usual_s)])

    def of_rate(
        self, limit: RateLimit, samples: int, staleness: Mapping[int, int], workers: int
    ) -> list[Warned]:
        """Hold the learning rate against the largest stable one, once enough delays are known.

        Args:
            limit: What it is held against.
            samples: Applied so far.
            staleness: Gradients that were applied, by their staleness.
            workers: Of the run.
        """
        if RATE in self._told or sum(staleness.values()) < _ENOUGH * workers:
            return []
        text = limit.exceeded(samples, staleness)
        return self._new([Warned(RATE, text)] if text else [])

    def of_losses(self, losses: Sequence[float]) -> list[Warned]:
        """Judge the mean training losses between evaluations, from the first on."""
        if len(losses) < _EVALUATIONS:
            return []
        first, last = losses[0], losses[-1]
        if not abs(first) > 0 or last <= first - (1 - _FALLS) * abs(first):
            return []
        text = (
            f"the training loss does not fall: {last:.4g} since the last evaluation, {first:.4g} "
            "before the first; try a lower lr"
        )
        return self._new([Warned("loss not falling", text)])

    def _new(self, found: Iterable[Warned]) -> list[Warned]:
        new = [warned for warned in found if warned.kind not in self._told]
        self._told += [warned.kind for warned in new]
        return new


def _sum(before: Load, now: Load) -> Load:
    if len(before.pushes) != len(now.pushes):  # the first, or resumed with others
        return now
    return Load(
        before.server + now.server,
        tuple(a + b for a, b in zip(before.pushes, now.pushes, strict=True)),
        tuple(a + b for a, b in zip(before.steps_s, now.steps_s, strict=True)),
    )


def _saturated(load: Load, passed_s: float, usual_s: float) -> list[Warned]:
    share, workers = load.server / passed_s, len(load.pushes)
    service_s = load.server / sum(load.pushes)
    if share < BUSY or (useful := 1 + usual_s / service_s) >= workers:
        return []
    text = (
        f"the server is saturated: it applies pushes {100 * min(share, 1.0):.0f} % of the time; "
        f"with steps of {_ms(usual_s)} and {_ms(service_s)} a push, about {useful:.1f} workers are "
        f"of use, and there are {workers}"
    )
    if service_s >= LONG_S:
        text += "; more servers (servers) share this work where each has a core and a link"
    return [Warned("server saturated", text)]


def _lagging(load: Load, steps_s: Sequence[float], usual_s: float) -> list[Warned]:
    found = []
    for worker, step_s in enumerate(steps_s):
        if math.isnan(step_s):
            text = f"worker {worker} has pushed nothing while others pushed {max(load.pushes)}"
        elif step_s > LAGS * usual_s > 0:
            text = (
                f"worker {worker} lags: {_ms(step_s)} a step, {step_s / usual_s:.1f} times the "
                f"usual {_ms(usual_s)}"
            )
        else:
            continue
        found.append(Warned(f"worker {worker} lags", text))
    return found


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"
