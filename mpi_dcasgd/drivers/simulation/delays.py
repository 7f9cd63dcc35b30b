"""Models of the time that a worker's step takes, with a seeded generator for each worker.

The k-th step of worker w follows from ``(seed, w, k)`` alone. So it does not matter in which
order workers are asked, a simulation can be resumed from nothing but counters, and two algorithms
that are simulated with one seed meet the very same delays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal, Union

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]
"""Draws n step times, in seconds."""

BLOCK = 64
"""Step times that are drawn at once; part of what makes a seed's delays what they are."""

_MACHINE, _STEPS = 0, 1  # purposes of generators


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _Model:
    """Base of the delay models.

    Attributes:
        mean_s: Mean step time over all workers and steps.
    """

    mean_s: Annotated[Seconds, Field(description="mean seconds of a step")] = 1.0

    def of_worker(self, worker: int, rng: np.random.Generator) -> Draw:
        """Generator of the worker's step times.

        Args:
            worker: From 0.
            rng: For what is drawn once for the worker as a machine.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Constant(_Model):
    """Every step takes the same time."""

    model: Literal["constant"] = "constant"

    def of_worker(self, worker: int, rng: np.random.Generator) -> Draw:
        return lambda rng, n: np.full(n, self.mean_s)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Exponential(_Model):
    """No memory: the worst spread that queueing theory has closed forms for."""

    model: Literal["exponential"] = "exponential"

    def of_worker(self, worker: int, rng: np.random.Generator) -> Draw:
        return lambda rng, n: rng.exponential(self.mean_s, n)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Gamma(_Model):
    """Task times of a cluster after Ali et al. (2000), as DANA and Gap-Aware simulate them.

    A machine's mean is q ~ Gamma(1/M^2, mean M^2), a task on it takes Gamma(1/T^2, q T^2), with M
    and T the coefficients of variation among machines and among a machine's tasks. The papers'
    homogeneous cluster has M = T = 0.1, their heterogeneous one M = 0.6.
    """

    model: Literal["gamma"] = "gamma"
    task_cv: Annotated[
        Positive, Field(description="standard deviation over mean of one machine's steps")
    ] = 0.1
    machine_cv: Annotated[
        Seconds, Field(description="the same of the machines' means; 0 for equal machines")
    ] = 0.1

    def of_worker(self, worker: int, rng: np.random.Generator) -> Draw:
        mean = self.mean_s
        if self.machine_cv > 0:
            spread = self.machine_cv**2
            mean = float(rng.gamma(1 / spread, self.mean_s * spread))
        shape, scale = 1 / self.task_cv**2, mean * self.task_cv**2
        return lambda rng, n: rng.gamma(shape, scale, n)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LogNormal(_Model):
    """Products of many small influences: exp of a normal with standard deviation ``sigma``."""

    model: Literal["lognormal"] = "lognormal"
    sigma: Annotated[Positive, Field(description="standard deviation of the logarithm")] = 0.5

    def of_worker(self, worker: int, rng: np.random.Generator) -> Draw:
        if self.mean_s == 0:
            return lambda rng, n: np.zeros(n)
        mu = math.log(self.mean_s) - self.sigma**2 / 2
        return lambda rng, n: rng.lognormal(mu, self.sigma, n)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Pareto(_Model):
    """A heavy tail: P(step > x) = (least / x)^tail, with least = mean (tail - 1) / tail."""

    model: Literal["pareto"] = "pareto"
    tail: Annotated[
        float,
        Field(gt=1, allow_inf_nan=False, description="tail index; the smaller, the heavier"),
    ] = 2.5

    def of_worker(self, worker: int, rng: np.random.Generator) -> Draw:
        least = self.mean_s * (self.tail - 1) / self.tail
        return lambda rng, n: least * (1 + rng.pareto(self.tail, n))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Empirical:
    """Drawn, with replacement, from step times that were measured (``mpi-dcasgd calibrate``)."""

    model: Literal["empirical"] = "empirical"
    steps_s: Annotated[
        tuple[Annotated[tuple[Seconds, ...], Field(strict=False, min_length=1)], ...],
        Field(
            strict=False,
            min_length=1,
            description="measured step times, a list a worker; worker w draws from list w mod n",
        ),
    ]

    @property
    def mean_s(self) -> float:
        """Mean over the lists' means, in seconds."""
        return float(np.mean([np.mean(steps) for steps in self.steps_s]))

    def of_worker(self, worker: int, rng: np.random.Generator) -> Draw:
        steps = np.array(self.steps_s[worker % len(self.steps_s)], dtype=np.float64)
        return lambda rng, n: steps[rng.integers(0, len(steps), n)]


DelayModel = Annotated[
    Union[Constant, Exponential, Gamma, LogNormal, Pareto, Empirical],  # noqa: UP007
    Field(discriminator="model"),
]

NAMES: dict[str, dict[str, Any]] = {
    "constant": {"model": "constant"},
    "exponential": {"model": "exponential"},
    "gamma": {"model": "gamma"},
    "gamma-heterogeneous": {"model": "gamma", "machine_cv": 0.6},
    "lognormal": {"model": "lognormal"},
    "pareto": {"model": "pareto"},
}
"""What one word stands for, in a cluster's ``delays:`` and on the command line."""


def scaled(model: Any, factor: float) -> Any:
    """The model with every step ``factor`` times as long."""
    if isinstance(model, Empirical):
        steps = tuple(tuple(factor * step for step in steps) for steps in model.steps_s)
        return Empirical(steps_s=steps)
    return replace(model, mean_s=factor * model.mean_s)


class StepTimes:
    """The step times of all workers of a run.

    Args:
        model: A delay model.
        num_workers: Workers 0 .. num_workers - 1.
        seed: Of the delays.
    """

    def __init__(self, model: Any, num_workers: int, seed: int) -> None:
        self._seed = seed
        self._draws: list[Draw] = [
            model.of_worker(worker, np.random.default_rng([seed, _MACHINE, worker]))
            for worker in range(num_workers)
        ]
        # Each reversed, so that the next time is the last of its list: popping that is cheap.
        self._left: list[list[float]] = [[] for _ in range(num_workers)]
        self._blocks = [0] * num_workers

    def next(self, worker: int) -> float:
        """Seconds of the worker's next step."""
        left = self._left[worker]
        return left.pop() if left else self._refill(worker)

    def _refill(self, worker: int) -> float:
        key = [self._seed, _STEPS, worker, self._blocks[worker]]
        drawn = self._draws[worker](np.random.default_rng(key), BLOCK)
        self._blocks[worker] += 1
        left: list[float] = drawn[::-1].tolist()
        self._left[worker] = left
        return left.pop()

    def drawn(self) -> list[int]:
        """Number of step times that each worker has drawn: the whole state."""
        pairs = zip(self._blocks, self._left, strict=True)
        return [BLOCK * blocks - len(left) for blocks, left in pairs]

    def skip_to(self, drawn: list[int]) -> None:
        """Go on after as many step times as ``drawn`` said."""
        for worker, count in enumerate(drawn):
            self._blocks[worker], within = divmod(count, BLOCK)
            self._left[worker] = []
            for _ in range(within):
                self.next(worker)
