"""Largest stable rates on a quadratic: by bisection over simulated runs, and by formula."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import mpi_dcasgd
from mpi_dcasgd.errors import NonFiniteError
from mpi_dcasgd.tools.results.runs import finite, unstopped
from mpi_dcasgd.tools.results.studies import Row

MOMENTA = {"none": "none", "heavy-ball": "plain, 0.9", "shifted": "shifted, 0.9"}
"""Momenta of a job's rule, and what tables call them. Plain momentum is dampened, as published."""

MOMENTUM = 0.9
CURVATURE = 0.75
"""The largest of the quadratic task's with two unknowns."""

_EVALUATIONS = 40
_FLOOR = 1e-9  # f - f* of a run that has converged as far as float32 goes, about


def stable_below(folder: Path, momentum: str, staleness: int, tolerance: float) -> Row:
    """Find the largest rate, times the curvature, at which simulated training does not grow.

    Args:
        folder: Where the runs are made, one in place of the other.
        momentum: Of ``MOMENTA``.
        staleness: Of every gradient but the first ones.
        tolerance: Relative distance between a rate that is stable and one that is not, at the end.
    """
    runs = 0

    def unstable_at(rate: float, apart: float) -> bool:
        nonlocal runs
        runs += 1
        # Close to the edge growth is slow, in proportion to the distance and to how far back an
        # update looks: by its delay, and by a buffer's memory.
        memory = 1.0 if momentum == "none" else 1 / (1 - MOMENTUM)
        updates = max(400, math.ceil(3 * (staleness + memory) / apart))
        return grows(folder / "quadratic", momentum, staleness, rate / CURVATURE, updates)

    stable, unstable = _bracket(lambda rate: unstable_at(rate, 1.0))
    while unstable / stable > 1 + tolerance:
        middle = math.sqrt(stable * unstable)
        if unstable_at(middle, unstable / stable - 1):
            unstable = middle
        else:
            stable = middle
    # A short run says little of a rate that lies at the edge, so both ends are asked again.
    step = 1 + tolerance
    while unstable_at(stable, tolerance):
        stable, unstable = stable / step, stable
    while not unstable_at(unstable, tolerance):
        stable, unstable = unstable, unstable * step
    return {"stable": finite(math.sqrt(stable * unstable)), "runs": runs}


def predicted(momentum: str, staleness: int) -> float:
    """Largest stable rate, times the curvature, by the formulas of Giladi et al. (2020).

    Without momentum it is ``2 sin(pi / (2 (2 tau + 1)))``. With momentum it is where a root of
    the recursion's characteristic polynomial leaves the unit circle.

    Args:
        momentum: Of ``MOMENTA``.
        staleness: Of every gradient.

    Example:
        >>> round(predicted("none", 1), 6), round(predicted("shifted", 1), 6)
        (1.0, 1.9)
    """
    if momentum == "none":
        return 2 * math.sin(math.pi / (2 * (2 * staleness + 1)))
    stable, unstable = 0.0, 64.0
    while unstable - stable > 1e-7 * unstable:
        middle = (stable + unstable) / 2
        roots = np.roots(_polynomial(momentum, staleness, middle * (1 - MOMENTUM)))
        if np.abs(roots).max() < 1:
            stable = middle
        else:
            unstable = middle
    return stable


def _polynomial(momentum: str, staleness: int, k: float) -> list[float]:
    """Coefficients from the highest power, for ``k = lr (1 - m) a``."""
    m = MOMENTUM
    if momentum == "heavy-ball":
        # z^(tau+1) - (1+m) z^tau + m z^(tau-1) + k, times z at tau = 0
        parts = {1: 1.0, 0: -(1 + m), -1: m}
        terms = {power + staleness: factor for power, factor in parts.items()}
        terms[0] = terms.get(0, 0.0) + k
    else:
        # z^(tau+2) - z^(tau+1) + (k - m) z + m
        terms = {}
        parts = {staleness + 2: 1.0, staleness + 1: -1.0}
        for power, factor in [*parts.items(), (1, k - m), (0, m)]:
            terms[power] = terms.get(power, 0.0) + factor
    least = min(terms)
    return [terms.get(power, 0.0) for power in range(max(terms), least - 1, -1)]


def _bracket(grows: Callable[[float], bool]) -> tuple[float, float]:
    """A stable rate and an unstable one, twice as large."""
    rate = 4.0
    if not grows(rate):
        while not grows(2 * rate):
            rate *= 2
        return rate, 2 * rate
    while grows(rate / 2):
        rate /= 2
    return rate / 2, rate


def grows(folder: Path, momentum: str, staleness: int, lr: float, updates: int) -> bool:
    """Say whether a simulated run gets further and further away from the minimum."""
    part: dict[str, Any] = {"name": momentum}
    if momentum != "none":
        part["momentum"] = MOMENTUM
    if momentum == "heavy-ball":
        part["dampening"] = MOMENTUM
    job = {
        "name": "stabilitys-edge-quadratic",
        "algorithm": "asgd",
        "epochs": _EVALUATIONS,
        "batch_size": 1,
        "lr": lr,
        "rule": {"momentum": part},
        "task": {
            "name": "quadratic",
            "dimension": 2,
            "noise": 0.0,
            "samples": math.ceil(updates / _EVALUATIONS),
        },
        "fuse": "blocks",
        "record": {"progress": "off", "trace": False},
        "checkpoint": {"every_s": None, "best": False},
    }
    shutil.rmtree(folder, ignore_errors=True)
    try:
        run = unstopped(
            mpi_dcasgd.simulate(job, workers=staleness + 1, delays="constant", run_dir=folder)
        )
    except NonFiniteError:
        return True
    gaps = [event["test_f_gap"] for event in run.metrics("evaluation")]
    return grown(gaps)


def grown(gaps: list[float]) -> bool:
    """Say whether a run's distances from the minimum have grown, in its last third.

    Oscillations are slow, so the largest of several evaluations count.

    Example:
        >>> grown([9.0, 1.0, 2.0, 1.5, 1.0, 2.1, 1.7, 1.8, 2.2])
        True
    """
    third = len(gaps) // 3
    before, after = max(gaps[-2 * third : -third]), max(gaps[-third:])
    return not after < before and after > _FLOOR
