"""Slowness on purpose: a real run on one machine that behaves like a heterogeneous cluster.

The same descriptions as the simulator's, with the same seed, give the same delays: a step is
computed, and then its worker sleeps until the step took as long as it should have.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.drivers.simulation.cluster import (
    Cluster,
    Factors,
    Pauses,
    WorkerClock,
    parse_cluster,
)
from mpi_dcasgd.drivers.simulation.delays import DelayModel
from mpi_dcasgd.errors import STRICT, ConfigError


def _part(key: str) -> Callable[[Any], Any]:
    """A validator that takes a cluster's key in YAML's form."""

    def parse(value: Any) -> Any:
        if value is None or is_dataclass(value):
            return value
        try:
            return getattr(parse_cluster("inject", {key: value}), key)
        except ConfigError as error:
            raise ValueError("; ".join(error.problems)) from error

    return parse


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InjectSettings:
    """The ``inject:`` section of a job: delays that a real run is given on purpose."""

    delays: Annotated[
        DelayModel | None,
        BeforeValidator(_part("delays")),
        Field(description="a step takes at least the time of this model, if there is one"),
    ] = None
    slow: Annotated[Factors, BeforeValidator(_part("slow"))] = Field(default_factory=dict)
    pauses: Annotated[
        Pauses | None,
        BeforeValidator(_part("pauses")),
        Field(description="stalls, if any"),
    ] = None

    @property
    def active(self) -> bool:
        """True if there is anything to inject."""
        return self.delays is not None or bool(self.slow) or self.pauses is not None


class Injection:
    """Holds one worker's steps up.

    Args:
        settings: What to inject.
        worker: Whose steps; from 0.
        num_workers: Of the run.
        seed: Of the delays.
        clock: Seconds, monotonic.
        sleep: Waits for so many seconds.

    Raises:
        ConfigError: The settings speak of a worker that there is not.
    """

    def __init__(
        self,
        settings: InjectSettings,
        worker: int,
        num_workers: int,
        seed: int,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._worker = worker
        self._drawn = settings.delays is not None
        parts: dict[str, Any] = {"slow": settings.slow, "pauses": settings.pauses}
        if settings.delays is not None:
            parts["delays"] = settings.delays
        self._times = WorkerClock(Cluster(**parts), num_workers, seed)
        self._clock = clock
        self._sleep = sleep
        self.begin()

    @classmethod
    def of_one_process(cls, settings: InjectSettings, seed: int) -> Injection:
        """For a run of one process: it is worker 0, and of the others there are none to slow."""
        named = [*settings.slow, *(settings.pauses.workers if settings.pauses else ())]
        return cls(settings, 0, 1 + max(named, default=0), seed)

    def begin(self) -> None:
        """Training begins now: pauses count from here."""
        self._origin = self._clock()

    def now(self) -> float:
        """Seconds since training began."""
        return self._clock() - self._origin

    def hold(self, began_s: float) -> None:
        """Sleep until the step that began at ``began_s`` and is computed now may be done."""
        computed_s = self.now() - began_s
        work_s = None if self._drawn else computed_s
        end_s = self._times.finish(self._worker, began_s, work_s)
        rest_s = end_s - self.now()
        if rest_s > 0:
            self._sleep(rest_s)
