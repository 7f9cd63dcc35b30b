"""The simulated side of a study: which cluster each simulated run is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from mpi_dcasgd.config.load import job_as_yaml, read_mapping
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.simulation.cluster import Cluster, check_workers, parse_cluster
from mpi_dcasgd.errors import ConfigError, did_you_mean
from mpi_dcasgd.server.precision import FLOAT_BYTES

Driver = Literal["real", "simulated"]

CALIBRATED = "calibrated"
"""In place of a cluster: as the study's own real runs measured it."""

_CLUSTER_KEYS = tuple(field.name for field in fields(Cluster))
_SAME_STEP = ("model", "data", "batch_size", "device", "threads", "capture", "inject")
_INJECTED = ("delays", "slow", "pauses")


def cluster_settings(
    value: Mapping[str, Any] | str | None,
    drivers: Sequence[Driver],
    folder: Path,
    problems: list[str],
) -> dict[str, Any] | None:
    """The cluster that a study describes.

    Args:
        value: Of the key ``cluster``: a mapping, a file, ``calibrated``, or None.
        drivers: Of the study.
        folder: What the file is relative to.
        problems: Lines are added.

    Returns:
        Plain settings of a ``Cluster``, or None if real runs are to tell.
    """
    if "simulated" not in drivers:
        if value is not None:
            problems.append("cluster: applies to simulated runs; set drivers: [real, simulated]")
        return {}
    if value is None:
        value = CALIBRATED if "real" in drivers else {}
    if value == CALIBRATED:
        if "real" not in drivers:
            problems.append(
                "cluster: calibrated takes the delays from the study's real runs; set drivers: "
                "[real, simulated], or give a mapping or the file of a cluster"
            )
        return None
    if isinstance(value, str):
        path, hint = folder / value, did_you_mean(value, [CALIBRATED])
        try:
            value = read_mapping(path, "cluster")
        except ConfigError as error:
            problems += [f"cluster: {path}: {line}{hint}" for line in error.problems]
            return {}
        # What calibrate wrote says how many it measured; here that is the study's to say.
        value.pop("workers", None)
    # Not check.known, which would look for a wrong word among those of a job.
    settings = {key: inner for key, inner in value.items() if key in _CLUSTER_KEYS}
    problems += [
        f"cluster.{key}: unknown{did_you_mean(key, _CLUSTER_KEYS)} "
        f"(allowed: {', '.join(_CLUSTER_KEYS)})"
        for key in value
        if key not in _CLUSTER_KEYS
    ]
    try:
        parse_cluster("cluster", settings)
    except ConfigError as error:
        problems += [f"cluster.{line}" for line in error.problems]
        return {}
    return settings


def with_injected(settings: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """A cluster as slow as a job makes its real runs; what the cluster itself says, holds.

    Its messages are those of the job, too: to so many servers, in 16 bits where both directions
    have them, and in chunks where the job says how long they are (``auto`` depends on hosts).
    """
    inject = job_as_yaml(job)["inject"]
    taken = {key: inject[key] for key in _INJECTED if inject.get(key)}
    exchange = exchange_of(job)
    return {**taken, **({"exchange": exchange} if exchange else {}), **settings}


def exchange_of(job: Job) -> dict[str, Any]:
    """Keys of a cluster's ``exchange`` that a job's messages differ from the default in."""
    found: dict[str, Any] = {}
    if job.mode != "asynchronous":
        return found
    if "float32" not in (job.wire.push, job.wire.reply):
        found["element_bytes"] = 2
    if job.servers > 1:  # the stretches of several travel in one piece each
        found["servers"] = job.servers
    elif job.chunk_mb != "auto" and job.chunk_mb > 0:
        element_bytes = found.get("element_bytes", FLOAT_BYTES)  # chunks are so many elements
        found["chunk_bytes"] = int(job.chunk_mb * 1e6) * element_bytes // FLOAT_BYTES
    return found


def check_injected(job: Job, num_workers: int) -> list[str]:
    """Return what the job would have slowed and is not there, a line each."""
    inject = job_as_yaml(job)["inject"]
    settings = {key: inject[key] for key in ("slow", "pauses") if inject[key]}
    try:
        check_workers(parse_cluster("inject", settings), num_workers)
    except ConfigError as error:
        return [f"inject.{line}" for line in error.problems]
    return []


def check_simulated(settings: Mapping[str, Any], job: Job, num_workers: int) -> list[str]:
    """Return what keeps a run from being simulated on a cluster, a line each."""
    try:
        check_workers(parse_cluster("cluster", settings), num_workers + backup_workers(job))
    except ConfigError as error:
        return [f"cluster.{line}" for line in error.problems]
    return []


def backup_workers(job: Job) -> int:
    """Workers beyond those whose gradients make an update."""
    return job.sync.backup if job.mode == "synchronous" else 0


def same_steps(one: Job, other: Job) -> bool:
    """Return whether a step of one job takes as long as one of the other, as calibration needs."""
    return all(getattr(one, key) == getattr(other, key) for key in _SAME_STEP)
