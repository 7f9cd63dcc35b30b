"""From a run to the bandwidth of its links, which its workers share at the server."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_dcasgd.drivers.simulation.cluster import Cluster, Network, ServerTimes, parse_cluster
from mpi_dcasgd.drivers.simulation.delays import Empirical
from mpi_dcasgd.drivers.simulation.linked_engine import engine_of
from mpi_dcasgd.drivers.simulation.network import Exchange
from mpi_dcasgd.drivers.simulation.timing import CountingSite
from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.tools.calibration import delays_of_run, settings_of

START = 4
"""One push of so many is left out at the start of a run, where workers begin together."""

_FASTEST = 1e12  # bytes a second of a link that is not noticed
_SHARES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.06, 0.03, 0.01)  # that are tried
_FIT_ROUNDS, _FIT_UPDATES = 30, 2000


def pushes_per_s(ends_s: NDArray[np.float64]) -> float:
    """Return the rate of pushes, all but the first quarter.

    Args:
        ends_s: Seconds at which they were dealt with, in order.

    Example:
        >>> pushes_per_s(np.array([5.0, 6.0, 6.5, 7.0, 7.5]))
        2.0
    """
    first = len(ends_s) // START
    return float((len(ends_s) - 1 - first) / (ends_s[-1] - ends_s[first]))


def predicted_per_s(
    cluster: Cluster, workers: int, updates: int, size: int, seed: int = 0
) -> float:
    """Return the rate of pushes in a simulated run, all but the first quarter.

    Args:
        cluster: How long everything takes.
        workers: Without the servers.
        updates: How many to make.
        size: Bytes of a push to all servers, as float32.
        seed: Of the delays.
    """
    engine = engine_of(cluster, workers, size, seed, CountingSite(workers, updates))
    engine.run(updates // START + 1)
    began_s = engine.now
    engine.run()
    return (updates - 1 - updates // START) / (engine.now - began_s)


def late_share_of_run(
    folder: RunFolder, cluster: dict[str, Any], size: int, exchange: Exchange | None = None
) -> float:
    """Return the ``late_share`` with which a simulation is as fast as a run of several workers.

    Args:
        folder: The run's.
        cluster: What ``linked_cluster_of_run`` found of a run with one worker.
        size: Bytes of a push to all servers, as float32.
        exchange: How the run's vectors travelled.
    """
    delays = delays_of_run(folder)
    measured = pushes_per_s(folder.trace().time_us / 1e6)
    settings = {key: cluster[key] for key in ("network", "server")}

    def per_s(late_share: float) -> float:
        network = {**settings["network"], "late_share": late_share}
        found = parse_cluster("calibrated", {**settings, "delays": delays, "network": network})
        found = replace(found, exchange=exchange or Exchange())
        return predicted_per_s(found, len(delays["steps_s"]), _FIT_UPDATES, size)

    return min(_SHARES, key=lambda share: abs(per_s(share) - measured))


def linked_cluster_of_run(
    folder: RunFolder, server: ServerTimes, size: int, exchange: Exchange | None = None
) -> dict[str, Any]:
    """A cluster whose links make a simulation as fast as the run was.

    The links of all hosts are alike. Messages take no time beside that of their bytes.

    Args:
        folder: The run's.
        server: What a push costs a server.
        size: Bytes of a push to all servers, as float32.
        exchange: How the run's vectors travelled.

    Raises:
        RunFolderError: As ``delays_of_run``; or the run was as fast as if there were no links.
    """
    delays = delays_of_run(folder)
    workers = len(delays["steps_s"])
    steps = Empirical(steps_s=tuple(tuple(steps) for steps in delays["steps_s"]))
    measured = pushes_per_s(folder.trace().time_us / 1e6)

    def per_s(bytes_per_s: float) -> float:
        network = Network(bytes_per_s=bytes_per_s, server_bytes_per_s=bytes_per_s)
        cluster = Cluster(
            delays=steps, network=network, server=server, exchange=exchange or Exchange()
        )
        return predicted_per_s(cluster, workers, _FIT_UPDATES, size)

    if per_s(_FASTEST) <= measured:
        raise RunFolderError(
            f"{folder.path}: its workers waited no longer for the server than its updates take, so "
            "nothing can be told of a link; take a run with longer vectors, or leave --link out"
        )
    low, high = math.log(size * measured / 100), math.log(_FASTEST)
    for _ in range(_FIT_ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if per_s(math.exp(middle)) < measured else (low, middle)
    found = float(f"{math.exp((low + high) / 2):.4g}")
    return {
        "workers": workers,
        "delays": delays,
        "network": {"bytes_per_s": found, "server_bytes_per_s": found},
        "server": settings_of(server),
    }
