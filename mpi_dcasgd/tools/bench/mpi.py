"""Benchmark of the parameter server over MPI against the bare messages and the update alone.

Each number of workers is a world of its own, whose ranks are ``mpi_rank.py``. The limit is that of
a server that does one thing after the other: one over the sum of two times, that of a message to
and fro and that of an update.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mpi_dcasgd.drivers.topology import Topology
from mpi_dcasgd.drivers.transport.chunks import AUTO_MB
from mpi_dcasgd.tools.bench.spread import rate, ratios, table
from mpi_dcasgd.tools.bench.ways import Way
from mpi_dcasgd.tools.bench.worlds import Starter, answer_in

SIZES = (270_000, 11_000_000, 25_600_000)
"""Parameters of ResNet-20 (CIFAR), ResNet-18 and ResNet-50."""


@dataclass(frozen=True)
class Case:
    """Rates of one rule at one size with so many workers, one of each a round.

    Attributes:
        workers: Number of workers.
        params: Elements of a vector.
        rule: The algorithm.
        transport: How vectors travel.
        per_s: Pushes and pulls a second.
        raw_per_s: The same messages a second, by MPI's own wait, with nothing done to them; headers
            alone where memory is shared.
        update_per_s: Updates a second, on the same vectors, without messages.
        servers: Number of servers. Where there are several, messages and updates by themselves are
            those of one of them.
    """

    workers: int
    params: int
    rule: str
    transport: Way
    per_s: Sequence[float]
    raw_per_s: Sequence[float]
    update_per_s: Sequence[float]
    servers: int = 1

    @property
    def limits(self) -> list[float]:
        """Pushes a second of a server that loses no time between messages and updates."""
        pairs = zip(self.raw_per_s, self.update_per_s, strict=True)
        return [1 / (1 / raw + 1 / update) for raw, update in pairs]

    def entry(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            **vars(self),
            **ratios(self.per_s, self.raw_per_s).entry("over_raw"),
            **ratios(self.per_s, self.limits).entry("over_limit"),
            **ratios(self.per_s, self.update_per_s).entry("over_update"),
        }


def measure(
    workers: int,
    sizes: Sequence[int],
    rules: Sequence[str],
    rounds: int,
    starter: Starter,
    transports: Sequence[Way] = ("messages", "shared"),
    chunk_mb: float = AUTO_MB,
    pushes: int | None = None,
    servers: Sequence[int] = (1,),
) -> list[Case]:
    """Measure one world.

    Args:
        workers: Number of workers.
        sizes: Lengths of the vectors.
        rules: Asynchronous algorithms.
        rounds: Measurements of each case.
        starter: Starts the world.
        transports: Ways for the vectors to travel, in turns.
        chunk_mb: Megabytes of a chunk, where they travel in chunks.
        servers: Numbers of servers, in turns; several have no chunks.
        pushes: Pushes of a measurement; None for as many as the size allows.

    Raises:
        LaunchError: There is no launcher, or the world failed.
    """
    spec: dict[str, Any] = {"params": list(sizes), "rules": list(rules), "rounds": rounds}
    spec |= {"transports": list(transports), "chunk_mb": chunk_mb, "pushes": pushes}
    spec["servers"] = list(servers)
    program = [sys.executable, "-m", "mpi_dcasgd.tools.bench.mpi_rank", json.dumps(spec)]
    ranks = Topology("asynchronous", workers, max(servers)).world_size
    found: list[Mapping[str, Any]] = answer_in(starter.finish(ranks, program))
    return [Case(**entry) for entry in found]


def as_table(cases: Sequence[Case]) -> str:
    """Return the rates and ratios as a Markdown table."""
    heads = ["rule", "transport", "servers", "workers", "parameters"]
    heads += [
        "raw MPI /s",
        "update alone /s",
        "server /s",
        "of raw MPI",
        "of the limit",
        "of the update",
    ]
    rows = [
        [
            case.rule,
            case.transport,
            str(case.servers),
            str(case.workers),
            f"{case.params / 1e6:.2f} M",
            rate(case.raw_per_s),
            rate(case.update_per_s),
            rate(case.per_s),
            str(ratios(case.per_s, case.raw_per_s)),
            str(ratios(case.per_s, case.limits)),
            str(ratios(case.per_s, case.update_per_s)),
        ]
        for case in cases
    ]
    return table(heads, rows, words=2)
