"""Topology of a world: which ranks serve, which train, and the worker that each rank is.

Workers are numbered from 0, as the server, the trace and reports number them; ranks are MPI's. In
an asynchronous run rank 0 serves and worker ``w`` is rank ``w + 1``; otherwise every rank trains
and worker ``w`` is rank ``w``. No other module adds or subtracts that one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.rules.compatibility import Mode

SERVER = 0
"""Rank of the server of an asynchronous run, and of the rank that records any run."""

Role = Literal["server", "worker", "trainer"]


@dataclass(frozen=True)
class Topology:
    """The ranks of one run.

    Attributes:
        mode: Asynchronous runs have a server.
        num_workers: Ranks that compute gradients, at least 1.

    Example:
        >>> world = Topology("asynchronous", num_workers=4)
        >>> world.world_size, world.rank_of(0), world.worker_of(4), world.role(0)
        (5, 1, 3, 'server')
    """

    mode: Mode
    num_workers: int

    @classmethod
    def of_world(cls, mode: Mode, world_size: int, *, algorithm: str, origin: str = "") -> Topology:
        """Return the topology of a world of so many ranks.

        Args:
            mode: Of the algorithm.
            world_size: Ranks, the server included.
            algorithm: Its name, for the message.
            origin: Where the number comes from, e.g. ``-n 3``, for the message.

        Raises:
            LaunchError: The algorithm cannot run on so many ranks.
        """
        world = cls(mode, world_size - cls(mode, 1).num_servers)
        prefix = f"{origin}: " if origin else ""
        ranks = f"{world_size} rank{'' if world_size == 1 else 's'}"
        if mode == "sequential" and world_size != 1:
            raise LaunchError(
                f"{prefix}algorithm {algorithm} is one process, but got {ranks}; start 1 (omit "
                "-n and the launcher), or choose another algorithm"
            )
        if world.num_workers < 1:
            raise LaunchError(
                f"{prefix}algorithm {algorithm} got {ranks}; it needs a server and at least one "
                "worker, so start 2 or more: mpirun -n 5 python -m mpi_dcasgd train JOB, or "
                "mpi-dcasgd run -n 5 JOB"
            )
        return world

    @property
    def num_servers(self) -> int:
        """Ranks that serve."""
        return 1 if self.mode == "asynchronous" else 0

    @property
    def world_size(self) -> int:
        """All ranks, servers included."""
        return self.num_servers + self.num_workers

    @property
    def worker_ranks(self) -> range:
        """Ranks that compute gradients, in the order of their workers."""
        return range(self.num_servers, self.world_size)

    def rank_of(self, worker: int) -> int:
        """Return the rank of a worker."""
        return self.num_servers + worker

    def worker_of(self, rank: int) -> int | None:
        """Return the worker that a rank is; None for a server."""
        return rank - self.num_servers if rank >= self.num_servers else None

    def role(self, rank: int) -> Role:
        """Return the role of a rank, as environment.json names it."""
        if self.mode != "asynchronous":
            return "trainer"
        return "server" if self.worker_of(rank) is None else "worker"
