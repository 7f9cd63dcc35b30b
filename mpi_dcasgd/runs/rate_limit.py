"""Curvature of a run, as far as it is known, and the learning rate that it allows."""

from __future__ import annotations

import math

from mpi_dcasgd.errors import ConfigError, RunFolderError
from mpi_dcasgd.learning.guard import guarded
from mpi_dcasgd.record.rate_limit import RateLimit
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.build import Workshop
from mpi_dcasgd.server.server import ParameterServer
from mpi_dcasgd.tools.largest_rate import LargestRate


def rate_limit(folder: RunFolder, workshop: Workshop, server: ParameterServer) -> RateLimit | None:
    """Return what the learning rate of a run is held against; None where no curvature is known.

    A task may know its largest curvature; else the folder of a run that is resumed may have what
    ``sharpness`` found at the weights of before.

    Raises:
        ConfigError: The task's curvature raises, or is no number above 0.
    """
    if server.layout.stretches:  # groups have factors of their own
        return None
    source = "which the task knows"
    curvature = _of_task(workshop)
    if curvature is None:
        source = "which `sharpness` found"
        curvature = _kept(folder)
    if curvature is None:
        return None
    largest = LargestRate(server.rule, workshop.job.algorithm)

    def known(staleness: float) -> float | None:
        try:
            return largest.between(staleness)
        except ConfigError:
            return None  # its steps are not linear near a minimum: nothing is known

    return RateLimit(curvature, source, server.schedule, known)


def _of_task(workshop: Workshop) -> float | None:
    task = workshop.subject.task
    with guarded(task, "curvature") as curvature:
        found = curvature()
    if found is None:
        return None
    if not isinstance(found, (int, float)) or not 0 < found < math.inf:
        name = type(task).__name__
        raise ConfigError("task", [f"{name}.curvature returned {found!r}; allowed: a number > 0"])
    return float(found)


def _kept(folder: RunFolder) -> float | None:
    try:
        found = folder.sharpness().get("curvature")
    except RunFolderError:
        return None  # a warning less; the run does not need it
    good = isinstance(found, (int, float)) and 0 < found < math.inf
    return float(found) if good else None  # type: ignore[arg-type]
