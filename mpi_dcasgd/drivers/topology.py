"""Topology of a world: which ranks serve, which train, and the worker that each rank is.

Workers are numbered from 0, as the server, the trace and reports number them; ranks are MPI's. In
an asynchronous run rank 0 serves, and so do the ranks after it if there are several servers; the
workers come behind them. Otherwise every rank trains and worker ``w`` is rank ``w``. No other
module adds or subtracts the number of servers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.rules.compatibility import Mode
from mpi_dcasgd.wording import counted

SERVER = 0
"""Rank of the server of an asynchronous run, which leads where there are several, and of the rank
that records any run."""

Role = Literal["server", "worker", "trainer"]


@dataclass(frozen=True)
class Topology:
    """The ranks of one run.

    Attributes:
        mode: Asynchronous runs have a server.
        num_workers: Ranks that compute gradients: 1 in a sequential run, otherwise at least 1.
        servers: Ranks that serve an asynchronous run, at least 1; no other run has any.

    Raises:
        LaunchError: There can be no such world.

    Example:
        >>> world = Topology("asynchronous", num_workers=4)
        >>> world.world_size, world.rank_of(0), world.worker_of(4), world.role(0)
        (5, 1, 3, 'server')
        >>> world = Topology("asynchronous", num_workers=4, servers=2)
        >>> world.world_size, world.rank_of(0), list(world.follower_ranks)
        (6, 2, [1])
    """

    mode: Mode
    num_workers: int
    servers: int = 1

    def __post_init__(self) -> None:
        _check(
            self.mode,
            self.num_workers,
            f"this {self.mode} run",
            self.num_workers,
            "worker",
            self.servers,
        )

    @classmethod
    def of_workers(
        cls, mode: Mode, num_workers: int, *, algorithm: str, servers: int = 1
    ) -> Topology:
        """Return the topology of a run with so many workers.

        Args:
            mode: Of the algorithm.
            num_workers: Ranks that compute gradients.
            algorithm: Its name, for the message.
            servers: Ranks that serve, if the mode has any.

        Raises:
            LaunchError: The algorithm cannot run with so many workers.
        """
        _check(mode, num_workers, f"algorithm {algorithm}", num_workers, "worker", servers)
        return cls(mode, num_workers, servers)

    @classmethod
    def of_world(
        cls, mode: Mode, world_size: int, *, algorithm: str, origin: str = "", servers: int = 1
    ) -> Topology:
        """Return the topology of a world of so many ranks.

        Args:
            mode: Of the algorithm.
            world_size: Ranks, the servers included.
            algorithm: Its name, for the message.
            origin: Where the number comes from, e.g. ``-n 3``, for the message.
            servers: Ranks that serve, if the mode has any.

        Raises:
            LaunchError: The algorithm cannot run on so many ranks.
        """
        num_workers = world_size - _num_servers(mode, servers)
        who = f"{origin}: algorithm {algorithm}" if origin else f"algorithm {algorithm}"
        _check(mode, num_workers, who, world_size, "rank", servers)
        return cls(mode, num_workers, servers)

    @property
    def num_servers(self) -> int:
        """Number of ranks that serve."""
        return _num_servers(self.mode, self.servers)

    @property
    def world_size(self) -> int:
        """Number of ranks, servers included."""
        return self.num_servers + self.num_workers

    @property
    def server_ranks(self) -> range:
        """Ranks that serve; none but in an asynchronous run."""
        return range(self.num_servers)

    @property
    def follower_ranks(self) -> range:
        """Ranks that serve and do what the leading server says."""
        return self.server_ranks[1:]

    @property
    def worker_ranks(self) -> range:
        """Ranks that compute gradients, in the order of their workers."""
        return range(self.num_servers, self.world_size)

    def rank_of(self, worker: int) -> int:
        """Return the rank of a worker."""
        return self.num_servers + worker

    def worker_of(self, rank: int) -> int | None:
        """Return the worker that a rank is; None for a server."""
        return None if rank in self.server_ranks else rank - self.num_servers

    def role(self, rank: int) -> Role:
        """Return the role of a rank, as environment.json names it."""
        if self.mode != "asynchronous":
            return "trainer"
        return "server" if rank in self.server_ranks else "worker"


def _num_servers(mode: Mode, servers: int) -> int:
    return servers if mode == "asynchronous" else 0


def _check(mode: Mode, num_workers: int, who: str, got: int, noun: str, servers: int = 1) -> None:
    """Refuse a number of workers that the mode cannot have, in terms of what the user gave."""
    if num_workers >= 1 and (mode != "sequential" or num_workers == 1):
        return
    number = counted(got, noun)
    if mode == "sequential":
        raise LaunchError(
            f"{who} is one process, but got {number}; start 1 (omit -n and the launcher), or "
            "choose another algorithm"
        )
    if mode == "synchronous":
        raise LaunchError(f"{who} got {number}; it needs at least one rank, and all of them train")
    if servers > 1:
        raise LaunchError(
            f"{who} got {number}; it needs {servers} servers (servers: {servers}) and at least one "
            f"worker, so start {servers + 1} or more ranks, or fewer servers"
        )
    raise LaunchError(
        f"{who} got {number}; it needs a server and at least one worker, so start 2 or more ranks: "
        "mpirun -n 5 python -m mpi_dcasgd train JOB, or mpi-dcasgd run -n 5 JOB"
    )
