"""Models of the time that a worker's step takes, with a seeded generator for each worker.

The k-th step of worker w follows from ``(seed, w, k)`` alone. So it does not matter in which
order workers are asked, a simulation can be resumed from nothing but counters, and two algorithms
that are simulated with one seed meet the very same delays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT, ConfigError, UserError
from mpi_dcasgd.extension import Table, is_path, unknown
from mpi_dcasgd.learning.settings import Positive, Seconds
from mpi_dcasgd.messages import problems_of, seen

if TYPE_CHECKING:  # a job is checked without loading NumPy
    import numpy as np
    from numpy.typing import NDArray

    Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
    """Draws n step times, in seconds."""

BLOCK = 64
"""Step times that are drawn at once; part of what makes a seed's delays what they are."""

_MACHINE, _STEPS = 0, 1  # purposes of generators


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DelayModel:
    """Base of the delay models: how long the steps of each worker take.

    A subclass is a frozen dataclass whose fields are the settings that ``delays:`` may give. It
    overrides ``of_worker`` and has a ``mean_s``, as a field or a property: the mean step time over
    all workers and steps.

    Attributes:
        model: The name in job and cluster files: one of ``DELAYS``, or ``package.module:Name``.

    Example:
        Steps of either of two lengths, in ``my_delays.py``::

            @dataclass(frozen=True, kw_only=True, config=STRICT)
            class Either(DelayModel):
                mean_s: Annotated[float, Field(ge=0)] = 1.0

                def of_worker(self, worker, rng):
                    return lambda rng, n: self.mean_s * rng.choice([0.5, 1.5], n)
    """

    model: Annotated[str, Field(min_length=1)]

    if TYPE_CHECKING:

        @property
        def mean_s(self) -> float:
            """Mean step time over all workers and steps, in seconds."""

    def of_worker(self, worker: int, rng: np.random.Generator) -> Draw:
        """Make the generator of a worker's step times, in seconds.

        Args:
            worker: From 0.
            rng: For what is drawn once for the worker as a machine.

        Returns:
            A function that draws n step times from the generator it is given, and from nothing
            else: ``lambda rng, n: rng.exponential(self.mean_s, n)``.
        """
        raise NotImplementedError(f"{type(self).__name__} must override of_worker")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _MeanModel(DelayModel):
    """Base of the delay models that have their mean as a setting."""

    mean_s: Annotated[Seconds, Field(description="mean seconds of a step")] = 1.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Constant(_MeanModel):
    """Every step takes the same time."""

    model: Literal["constant"] = "constant"

    def of_worker(self, worker: int, rng: np.random.Generator) -> Draw:
        import numpy as np

        return lambda rng, n: np.full(n, self.mean_s)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Exponential(_MeanModel):
    """Exponential step times: the worst spread that queueing theory has closed forms for."""

    model: Literal["exponential"] = "exponential"

    def of_worker(self, worker: int, rng: np.random.Generator) -> Draw:
        return lambda rng, n: rng.exponential(self.mean_s, n)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Gamma(_MeanModel):
    """Gamma step times of unequal machines (Ali et al. 2000), as DANA and Gap-Aware have them.

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
class LogNormal(_MeanModel):
    """Log-normal step times: products of many small influences."""

    model: Literal["lognormal"] = "lognormal"
    sigma: Annotated[Positive, Field(description="standard deviation of the logarithm")] = 0.5

    def of_worker(self, worker: int, rng: np.random.Generator) -> Draw:
        if self.mean_s == 0:
            import numpy as np

            return lambda rng, n: np.zeros(n)
        mu = math.log(self.mean_s) - self.sigma**2 / 2
        return lambda rng, n: rng.lognormal(mu, self.sigma, n)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Pareto(_MeanModel):
    """Step times with a heavy tail: now and then a step takes very long.

    P(step > x) = (least / x)^tail, with least = mean (tail - 1) / tail.
    """

    model: Literal["pareto"] = "pareto"
    tail: Annotated[
        float,
        Field(gt=1, allow_inf_nan=False, description="tail index; the smaller, the heavier"),
    ] = 2.5

    def of_worker(self, worker: int, rng: np.random.Generator) -> Draw:
        least = self.mean_s * (self.tail - 1) / self.tail
        return lambda rng, n: least * (1 + rng.pareto(self.tail, n))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Empirical(DelayModel):
    """Step times drawn, with replacement, from measured ones (``mpi-dcasgd calibrate``)."""

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
        import numpy as np

        return float(np.mean([np.mean(steps) for steps in self.steps_s]))

    def of_worker(self, worker: int, rng: np.random.Generator) -> Draw:
        import numpy as np

        steps = np.array(self.steps_s[worker % len(self.steps_s)], dtype=np.float64)
        return lambda rng, n: steps[rng.integers(0, len(steps), n)]


_HERE = "mpi_dcasgd.drivers.simulation.delays"

DELAYS: Table[DelayModel] = Table(
    DelayModel,
    {
        "constant": f"{_HERE}:Constant",
        "exponential": f"{_HERE}:Exponential",
        "gamma": f"{_HERE}:Gamma",
        "lognormal": f"{_HERE}:LogNormal",
        "pareto": f"{_HERE}:Pareto",
        "square-root": "mpi_dcasgd.drivers.simulation.square_root:SquareRoot",
        "empirical": f"{_HERE}:Empirical",
    },
)
"""Name in ``delays: {model: ...}`` to the class."""

NAMES: dict[str, dict[str, Any]] = {
    "constant": {"model": "constant"},
    "exponential": {"model": "exponential"},
    "gamma": {"model": "gamma"},
    "gamma-heterogeneous": {"model": "gamma", "machine_cv": 0.6},
    "lognormal": {"model": "lognormal"},
    "pareto": {"model": "pareto"},
    "square-root": {"model": "square-root"},
}
"""What one word stands for, in a cluster's ``delays:`` and on the command line."""


def named_delays(word: str) -> dict[str, Any]:
    """The settings that one word stands for: a name, or ``package.module:Name``.

    Raises:
        UserError: It stands for none.
    """
    if word in NAMES:
        return dict(NAMES[word])
    if is_path(word):
        return {"model": word}
    raise UserError(unknown(word, NAMES))


def parse_delays(value: Any) -> DelayModel:
    """Make a delay model of what YAML or the command line said.

    Args:
        value: One word, or a mapping of ``model`` and its settings.

    Raises:
        ConfigError: With every problem found; the lines continue the key, as in ``.mean_s: ...``.
    """
    if isinstance(value, DelayModel):
        return value
    key = ""
    try:
        settings = named_delays(value) if isinstance(value, str) else value
        if not isinstance(settings, Mapping):
            raise UserError(
                f"got {seen(value)}; allowed: a name, or a mapping of model and settings"
            )
        key = ".model"
        if "model" not in settings:
            raise UserError(f"missing; allowed: {', '.join(DELAYS)}, or package.module:Name")
        kind = DELAYS.find(settings["model"])
    except UserError as error:
        raise ConfigError("delays", [f"{key}: {error}"]) from error
    try:
        return kind(**{str(name): setting for name, setting in settings.items()})
    except ValidationError as error:
        raise ConfigError("delays", problems_of(kind, settings, ".", error)) from None


def scaled(model: Any, factor: float) -> Any:
    """The model with every step ``factor`` times as long."""
    if isinstance(model, Empirical):
        steps = tuple(tuple(factor * step for step in steps) for steps in model.steps_s)
        return Empirical(steps_s=steps)
    return replace(model, mean_s=factor * model.mean_s)


def generator(*key: int) -> np.random.Generator:
    """Return the random generator of a key: a seed, a purpose, a worker, a count."""
    import numpy as np

    return np.random.default_rng(key)


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
            model.of_worker(worker, generator(seed, _MACHINE, worker))
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
        rng = generator(self._seed, _STEPS, worker, self._blocks[worker])
        drawn = self._draws[worker](rng, BLOCK)
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
