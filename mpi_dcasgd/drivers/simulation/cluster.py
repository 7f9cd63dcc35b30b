"""A cluster as the simulator sees it: step times, disturbances, network, server.

In YAML, every key optional::

    delays: gamma  # or {model: gamma, mean_s: 0.05, machine_cv: 0.6}
    slow: {2: 4}  # worker 2 takes four times as long
    pauses: {every_s: 60, for_s: 2}  # every worker stalls now and then
    crashes: {every_s: 3600, repair_s: 120}
    network: {latency_s: 20e-6, bytes_per_s: 1.2e9, server_bytes_per_s: 1.2e9}
    server: {service_s: 50e-6, bytes_per_s: 5e9}
    exchange: {servers: 2, element_bytes: 2}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mpi_dcasgd.drivers.simulation.delays import (
    Constant,
    DelayModel,
    StepTimes,
    generator,
    parse_delays,
)
from mpi_dcasgd.drivers.simulation.network import Carriage, Exchange, Network, ServerTimes
from mpi_dcasgd.errors import STRICT, ConfigError
from mpi_dcasgd.learning.settings import Positive, Seconds
from mpi_dcasgd.messages import problems_of

__all__ = [
    "Cluster",
    "Crashes",
    "Network",
    "Pauses",
    "ServerTimes",
    "WorkerClock",
    "check_workers",
    "crash_s",
    "crashing",
    "parse_cluster",
]

_PAUSES, _CRASHES = 2, 3  # purposes of generators, beside those of delays.py

Workers = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...],
    Field(strict=False, description="whom it happens to; empty for all"),
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Pauses:
    """Stalls: the worker stands still and then continues where it was."""

    every_s: Annotated[Positive, Field(description="seconds from one stall to the next")]
    for_s: Annotated[Positive, Field(description="seconds that a stall lasts")]
    random: Annotated[
        bool,
        Field(description="exponential instead of even intervals (even ones begin at random)"),
    ] = True
    workers: Workers = ()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Crashes:
    """Deaths: what the worker was computing is lost; later it comes back and pulls anew."""

    every_s: Annotated[Positive, Field(description="mean seconds from a start to a crash")]
    repair_s: Annotated[Seconds, Field(description="seconds until the worker is back")]
    workers: Workers = ()


Factors = Annotated[
    Mapping[Annotated[int, Field(ge=0)], Positive],
    Field(description="worker: how many times as long its steps take"),
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cluster:
    """Everything that decides when things happen in a simulated run."""

    delays: Annotated[DelayModel, Field(description="step times")] = Constant()
    slow: Factors = Field(default_factory=dict)
    until_s: Annotated[
        Positive | None,
        Field(description="seconds after which a run ends, whatever is left of it; null: none"),
    ] = None
    pauses: Annotated[Pauses | None, Field(description="stalls, if any")] = None
    crashes: Annotated[Crashes | None, Field(description="deaths and repairs, if any")] = None
    network: Annotated[Network, Field(description="time of messages")] = Network()
    server: Annotated[ServerTimes, Field(description="time at the server")] = ServerTimes()
    exchange: Annotated[Exchange, Field(description="how vectors travel")] = Exchange()

    def carriage(self, size: int) -> Carriage:
        """Return what a push of ``size`` bytes of float32 and its reply come to."""
        return Carriage.of(self.network, self.server, self.exchange, size)


def parse_cluster(where: str, settings: Mapping[str, Any]) -> Cluster:
    """A cluster from what YAML or the command line said.

    Args:
        where: The file, or what stands for it, for messages.
        settings: Keys of ``Cluster``; ``delays`` may be one word.

    Raises:
        ConfigError: With every problem found.
    """
    settings = dict(settings)
    problems: list[str] = []
    delays: DelayModel = Constant()
    if "delays" in settings:
        try:
            delays = parse_delays(settings.pop("delays"))
        except ConfigError as error:
            problems += [f"delays{line}" for line in error.problems]
    try:
        # As JSON, since in Python's terms a strict dataclass takes no mapping for a section.
        cluster = TypeAdapter(Cluster).validate_json(json.dumps(settings, default=str))
        problems += _contradictions(cluster)
        if not problems:
            return replace(cluster, delays=delays)
    except ValidationError as error:
        problems += problems_of(Cluster, settings, "", error)
    raise ConfigError(where, problems)


def _contradictions(cluster: Cluster) -> list[str]:
    local, servers = cluster.network.local, cluster.exchange.servers
    if local and servers > 1:
        return [
            f"network.local: got {local} with {servers} servers, which are on hosts of their own; "
            "allowed: 0, or exchange.servers: 1"
        ]
    return []


class WorkerClock:
    """Clock of the workers: the end of a step that begins at a given time.

    Args:
        cluster: Its delays, slow workers and pauses.
        num_workers: Workers 0 .. num_workers - 1.
        seed: Of the delays.

    Raises:
        ConfigError: The cluster speaks of a worker that there is not.
    """

    def __init__(self, cluster: Cluster, num_workers: int, seed: int) -> None:
        check_workers(cluster, num_workers)
        self._steps = StepTimes(cluster.delays, num_workers, seed)
        self._factors = [float(cluster.slow.get(worker, 1.0)) for worker in range(num_workers)]
        pauses = cluster.pauses
        self._pauses = [
            _Stalls(pauses, seed, worker) if pauses and _hits(pauses, worker) else None
            for worker in range(num_workers)
        ]

    def finish(self, worker: int, begin_s: float, step_s: float | None = None) -> float:
        """End of the step that the worker begins now; asking takes the step.

        Args:
            worker: From 0.
            begin_s: Now.
            step_s: What the step would take on an ordinary worker, instead of a drawn time.
        """
        work_s = (self._steps.next(worker) if step_s is None else step_s) * self._factors[worker]
        stalls = self._pauses[worker]
        return begin_s + work_s if stalls is None else stalls.finish(begin_s, work_s)

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers for ``load_state_dict`` to continue from."""
        return {
            "drawn": self._steps.drawn(),
            "stalls": [None if s is None else [s.count, s.next_s] for s in self._pauses],
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self._steps.skip_to(list(saved["drawn"]))
        for stalls, state in zip(self._pauses, saved["stalls"], strict=True):
            if stalls is not None:
                stalls.count, stalls.next_s = int(state[0]), float(state[1])


class _Stalls:
    """One worker's stalls, one after the other."""

    def __init__(self, settings: Pauses, seed: int, worker: int) -> None:
        self._settings = settings
        self._key = [seed, _PAUSES, worker]
        self.count = 0
        self.next_s = 0.0
        self._advance(0.0)

    def finish(self, begin_s: float, work_s: float) -> float:
        """End of ``work_s`` of work that begins at ``begin_s``, stalls included."""
        end_s = begin_s + work_s
        while self.next_s <= end_s:
            # One that began before the work did holds it up for what is left of it.
            end_s += max(0.0, self._settings.for_s - max(0.0, begin_s - self.next_s))
            self._advance(self.next_s + self._settings.for_s)
        return end_s

    def _advance(self, ended_s: float) -> None:
        settings = self._settings
        self.count += 1
        if settings.random or self.count == 1:
            rng = generator(*self._key, self.count)
            if settings.random:
                self.next_s = ended_s + float(rng.exponential(settings.every_s))
            else:
                self.next_s = float(rng.uniform(0, settings.every_s))
        else:
            self.next_s = max(ended_s, self.next_s + settings.every_s)


def crash_s(crashes: Crashes, seed: int, worker: int, count: int) -> float:
    """Seconds that the worker lives after its ``count``-th start."""
    rng = generator(seed, _CRASHES, worker, count)
    return float(rng.exponential(crashes.every_s))


def _hits(event: Pauses | Crashes | None, worker: int) -> bool:
    return event is not None and (not event.workers or worker in event.workers)


def crashing(cluster: Cluster, num_workers: int) -> list[int]:
    """The workers that crash now and then."""
    return [worker for worker in range(num_workers) if _hits(cluster.crashes, worker)]


def check_workers(cluster: Cluster, num_workers: int) -> None:
    """Check that a cluster speaks only of workers that there are.

    Raises:
        ConfigError: With every worker that there is not.
    """
    named = {"slow": tuple(cluster.slow)}
    for key, event in (("pauses.workers", cluster.pauses), ("crashes.workers", cluster.crashes)):
        named[key] = event.workers if event else ()
    problems = [
        f"{key}: there is no worker {worker}; they are 0 to {num_workers - 1}"
        for key, workers in named.items()
        for worker in workers
        if worker >= num_workers
    ]
    if problems:
        raise ConfigError("the cluster", problems)
