"""A cluster description measured on this machine or from a run."""

from __future__ import annotations

from typing import Any

import torch

from mpi_dcasgd.config.load import load_job
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.simulation.asynchronous import message_bytes
from mpi_dcasgd.drivers.world import pick_device
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.build import Workshop
from mpi_dcasgd.tools.calibration import (
    cluster_of_run,
    measure_message_s,
    measure_service_s,
    measure_steps,
)

_CPU = torch.device("cpu")
_STEPS, _PUSHES = 200, 200


def measured(job: Job) -> dict[str, Any]:
    """This machine as a cluster whose every worker is a process on it."""
    workshop = Workshop.open(job, pick_device(job.device, 0))
    task = workshop.task(workshop.flat_model(workshop.device))
    steps_s = measure_steps(task, _STEPS)
    server = workshop.server(1, _CPU)
    service_s = _service_s(workshop)
    message_s = measure_message_s(message_bytes(server))
    return {
        "delays": {"model": "empirical", "steps_s": [steps_s]},
        "network": {"latency_s": float(f"{message_s:.6g}")},
        "server": {"service_s": float(f"{service_s:.6g}")},
    }


def cluster_of(folder: RunFolder) -> dict[str, Any]:
    """The cluster that a run took place on, its service time measured on this machine.

    Raises:
        RunFolderError: The run did not come to its end, or is no asynchronous one.
    """
    job = load_job(folder.job_yaml)
    return cluster_of_run(folder, _service_s(Workshop.open(job, _CPU)))


def _service_s(workshop: Workshop) -> float:
    task = workshop.task(workshop.flat_model(_CPU))
    return measure_service_s(workshop.server(1, _CPU), task, _PUSHES)
