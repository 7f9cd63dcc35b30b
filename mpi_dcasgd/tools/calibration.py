"""From measurements to a cluster description: step times, message time, service time.

Two sources. A run's records say how long each worker's steps took and how long it waited for
replies. Or this machine is measured: gradients of the job, pushes into its server, messages
between two ranks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mpi_dcasgd.drivers.simulation.cluster import Cluster, Network, ServerTimes
from mpi_dcasgd.drivers.simulation.delays import Empirical
from mpi_dcasgd.drivers.simulation.network import Exchange
from mpi_dcasgd.drivers.simulation.timing import simulate_timing_in_full
from mpi_dcasgd.errors import LaunchError, RunFolderError
from mpi_dcasgd.learning.learner import Learner
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.trace import Trace
from mpi_dcasgd.rules.algorithms import ALGORITHMS
from mpi_dcasgd.server.header import HEADER_BYTES
from mpi_dcasgd.server.precision import FLOAT_BYTES
from mpi_dcasgd.server.push import Push
from mpi_dcasgd.server.server import ParameterServer
from mpi_dcasgd.tools.launch.world import plan

MAX_STEPS = 200
"""Step times kept of each worker: so many quantiles of what was measured."""

_DIGITS = 6
_WARM_UP = 5
_FIT_ROUNDS = 20
_FIT_UPDATES = 4000
_NOTICED = 0.05
"""Share of a push that its length has to make for it to be told apart from the rest."""


def delays_of_run(folder: RunFolder) -> dict[str, Any]:
    """The step times of a run's workers, as a delay model's settings.

    The trace says when each push was dealt with; what lies between two pushes of a worker is a
    step and a wait. The steps are spread as those intervals are, and their mean is what the
    worker itself measured.

    Raises:
        RunFolderError: The run has no trace, did not complete, or is not asynchronous.
    """
    totals = _worker_totals(folder)
    trace = folder.trace()
    _check_asynchronous(folder, trace)
    lists = []
    for worker in sorted(totals):
        ends_s = trace.time_us[trace.worker == worker] / 1e6
        updates = totals[worker]["updates"]
        if not updates or len(ends_s) < 2:
            continue
        mean_s = (totals[worker]["compute_s"] + totals[worker]["data_s"]) / updates
        wait_s = totals[worker]["wait_s"] / updates
        steps_s = np.maximum(np.diff(ends_s) - wait_s, 0.1 * mean_s)
        lists.append(_quantiles(steps_s * (mean_s / steps_s.mean())))
    if not lists:
        raise RunFolderError(f"{folder.path}: no worker pushed twice; take a longer run")
    return {"model": "empirical", "steps_s": lists}


def cluster_of_run(
    folder: RunFolder, server: ServerTimes, *, size: int = 0, servers: int = 1
) -> dict[str, Any]:
    """A cluster on which a simulation waits as long for its replies as the run did.

    Args:
        folder: The run's.
        server: What a push costs a server.
        size: Bytes of a push to all servers, as float32.
        servers: How many the run had.

    Raises:
        RunFolderError: As ``delays_of_run``.
    """
    delays = delays_of_run(folder)
    totals = _worker_totals(folder)
    workers = len(delays["steps_s"])
    wait_s = sum(t["wait_s"] for t in totals.values()) / sum(t["updates"] for t in totals.values())
    steps = Empirical(steps_s=tuple(tuple(steps) for steps in delays["steps_s"]))

    def waits_s(latency_s: float) -> float:
        cluster = Cluster(
            delays=steps,
            network=Network(latency_s=latency_s),
            server=server,
            exchange=Exchange(servers=servers),
        )
        engine = simulate_timing_in_full(cluster, workers, _FIT_UPDATES, size)
        accounts = engine.accounts
        return sum(a.wait_s for a in accounts) / sum(a.updates for a in accounts)

    low_s, high_s = 0.0, wait_s / 2
    for _ in range(_FIT_ROUNDS):
        middle_s = (low_s + high_s) / 2
        low_s, high_s = (middle_s, high_s) if waits_s(middle_s) < wait_s else (low_s, middle_s)
    return {
        "workers": workers,
        "delays": delays,
        "network": {"latency_s": _rounded((low_s + high_s) / 2)},
        "server": settings_of(server),
    }


def settings_of(server: ServerTimes) -> dict[str, float]:
    """Return the settings of a cluster's ``server``.

    Example:
        >>> settings_of(ServerTimes(service_s=2e-5))
        {'service_s': 2e-05}
    """
    settings = {"service_s": server.service_s, "bytes_per_s": server.bytes_per_s}
    return {key: _rounded(value) for key, value in settings.items() if value is not None}


def measure_steps(learner: Learner, steps: int) -> list[float]:
    """Seconds of so many steps of one worker on this machine, data included, as quantiles."""
    tickets = learner.plan.num_tickets
    times = []
    for step in range(_WARM_UP + steps):
        started = time.perf_counter()
        learner.gradient(learner.load(step % tickets))
        times.append(time.perf_counter() - started)
    return _quantiles(np.array(times[_WARM_UP:]))


def measure_service(server: ParameterServer, short: ParameterServer, pushes: int) -> ServerTimes:
    """Measure what a push costs a server: whatever its length, and by its length.

    The second is what several servers have to divide between them.

    Args:
        server: With one worker, at the start of a run.
        short: The same for the shortest of vectors.
        pushes: How many to measure.
    """
    whole_s, fixed_s = measure_push_s(server, pushes), measure_push_s(short, pushes)
    by_length_s = whole_s - fixed_s
    if by_length_s < _NOTICED * whole_s:
        return ServerTimes(service_s=whole_s)
    size = HEADER_BYTES + FLOAT_BYTES * server.layout.size
    return ServerTimes(service_s=fixed_s, bytes_per_s=size / by_length_s)


def measure_push_s(server: ParameterServer, pushes: int) -> float:
    """Median seconds in which the server deals with a push and renews a snapshot.

    Args:
        server: With one worker, at the start of a run; its weights stay where they are.
        pushes: How many.
    """
    server.pull(0)
    slot, vector = server.slots[0], torch.zeros_like(server.weights)
    tickets = list(slot.message.tickets)
    times = []
    for _ in range(pushes):
        if server.slots[0].status != "working":
            break
        ticket = tickets.pop(0)
        push = Push(slot.version, ticket, server.plan.size(ticket), 1.0, 0.0, vector)
        started = time.perf_counter()
        server.push(0, push)
        times.append(time.perf_counter() - started)
        tickets += slot.message.tickets
    return float(np.median(times[len(times) // 4 :]))


def measure_message_s(size: int, mpirun: str | None = None) -> float:
    """Seconds for a message of ``size`` bytes between two ranks on this machine.

    Raises:
        LaunchError: There is no MPI that works.
    """
    program = [sys.executable, "-m", "mpi_dcasgd.tools.pingpong", str(size)]
    command = plan(2, program, mpirun=mpirun)
    done = subprocess.run(
        command.argv,
        env={**os.environ, **command.env},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise LaunchError(f"measuring messages failed: {command}\n{done.stderr.strip()}")
    return float(json.loads(done.stdout.strip().splitlines()[-1])["message_s"])


def _check_asynchronous(folder: RunFolder, trace: Trace) -> None:
    driver, algorithm = str(trace.meta.get("driver")), str(trace.meta.get("algorithm"))
    known = ALGORITHMS.get(algorithm)
    if driver not in ("mpi", "simulator") or known is None or known.mode != "asynchronous":
        raise RunFolderError(
            f"{folder.path}: {algorithm}, a {driver} run; only the records of asynchronous runs "
            "tell how long each worker's steps and its messages took: take one of those"
        )


def _worker_totals(folder: RunFolder) -> dict[int, dict[str, float]]:
    """The totals of the workers at the end of a run, by worker.

    Raises:
        RunFolderError: The run did not complete.
    """
    totals = {int(e["worker"]): e for e in folder.metrics() if e["event"] == "worker"}
    if not totals:
        raise RunFolderError(
            f"{folder.path}: its workers never reported how long their steps took; take a "
            "run that came to its end"
        )
    return totals


def _quantiles(steps_s: NDArray[np.float64]) -> list[float]:
    if len(steps_s) <= MAX_STEPS:
        return [_rounded(step) for step in sorted(steps_s.tolist())]
    places = (np.arange(MAX_STEPS) + 0.5) / MAX_STEPS
    found = np.quantile(steps_s, places)
    # Quantiles cut the tail off; the mean decides the throughput, so it is put right.
    found *= steps_s.mean() / found.mean()
    return [_rounded(step) for step in found.tolist()]


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.{_DIGITS}g}")


def merged(clusters: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One cluster of several runs' workers; of latencies and service times the mean."""
    steps = [steps for cluster in clusters for steps in cluster["delays"]["steps_s"]]
    latency_s = float(np.mean([cluster["network"]["latency_s"] for cluster in clusters]))
    servers = [cluster["server"] for cluster in clusters]
    by_byte_s = [1 / its["bytes_per_s"] if "bytes_per_s" in its else 0.0 for its in servers]
    server = ServerTimes(
        service_s=float(np.mean([its["service_s"] for its in servers])),
        bytes_per_s=1 / float(np.mean(by_byte_s)) if any(by_byte_s) else None,
    )
    return {
        "workers": len(steps),
        "delays": {"model": "empirical", "steps_s": steps},
        "network": {"latency_s": _rounded(latency_s)},
        "server": settings_of(server),
    }
