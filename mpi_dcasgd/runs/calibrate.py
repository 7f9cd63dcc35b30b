"""Describe a cluster for ``simulate``, measured on this machine or from runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mpi_dcasgd.config.load import load_job
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.simulated import exchange_of
from mpi_dcasgd.config.yaml12 import dump_yaml
from mpi_dcasgd.drivers.simulation.cluster import ServerTimes, parse_cluster
from mpi_dcasgd.drivers.world import pick_device
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.layout import ALIGN, FlatLayout
from mpi_dcasgd.record.atomic import write_atomic
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs import jobs
from mpi_dcasgd.runs.arguments import check_arguments, several
from mpi_dcasgd.runs.build import Workshop
from mpi_dcasgd.runs.jobs import JobSource
from mpi_dcasgd.runs.process import process_as_it_was
from mpi_dcasgd.runs.result import Run
from mpi_dcasgd.server.header import HEADER_BYTES
from mpi_dcasgd.server.precision import FLOAT_BYTES, WireSettings
from mpi_dcasgd.server.server import ParameterServer
from mpi_dcasgd.tools.calibration import (
    cluster_of_run,
    measure_message_s,
    measure_service,
    measure_steps,
    merged,
    settings_of,
)
from mpi_dcasgd.tools.link_calibration import late_share_of_run, linked_cluster_of_run

_CPU = torch.device("cpu")
_STEPS, _PUSHES = 200, 200


@dataclass(frozen=True)
class Calibration:
    """Description of a cluster.

    Attributes:
        cluster: What ``simulate`` takes as its ``cluster``.
        source: What was measured.
    """

    cluster: dict[str, Any]
    source: str

    @property
    def text(self) -> str:
        """The description as a YAML file."""
        return f"# Calibrated from {self.source}.\n{dump_yaml(self.cluster)}"

    def write(self, file: Path | str) -> None:
        """Write the description to a file.

        Raises:
            ConfigError: ``file`` is no path.
            RunFolderError: It cannot be written.
        """
        check_arguments(Calibration.write, locals())
        write_atomic(Path(file), self.text.encode())


def calibrate(
    source: JobSource | Run | Sequence[Run | Path | str],
    *,
    words: str | Sequence[str] = (),
    link: bool = False,
    **overrides: Any,
) -> Calibration:
    """Describe a cluster that behaves as runs did, or as this machine does.

    Args:
        source: A run or its folder, or several of them; or a job, whose steps are measured here.
        words: Changes of the job, ``key=value``.
        link: Find the bandwidth of the links, which workers share at the server, in place of the
            time of a message; from one run.
        **overrides: Changes of the job by key.

    Raises:
        ConfigError: The job is wrong, or changes are given with runs.
        RunFolderError: A run did not complete, or is not asynchronous.

    Example:
        How long twice as many workers would take on the cluster of a run::

            cluster = calibrate("runs/digits-asgd-20240506-070809").cluster
            print(simulate_timing("jobs/digits.yaml", cluster=cluster, workers=8).time_s)
    """
    check_arguments(calibrate, locals())
    words = several(words)
    listed = not isinstance(source, (str, os.PathLike, Mapping, Run, Job))
    sources: list[Any] = list(source) if listed else [source]  # type: ignore[arg-type]
    folders = [RunFolder.open(s.path if isinstance(s, Run) else s) for s in sources if _is_run(s)]
    if len(folders) not in (0, len(sources)) or (not folders and len(sources) != 1):
        raise ConfigError("calibrate", ["give one or more runs, or one job"])
    if folders and (words or overrides):
        raise ConfigError("calibrate", ["changes are for a job that is measured, not for runs"])
    if link and len(folders) != 1:
        raise ConfigError("calibrate", ["a link is found from one run: give its folder alone"])
    with process_as_it_was():
        if link:
            found, _ = linked_cluster_of(folders[0])
            name = str(folders[0].path)
        elif folders:
            found = merged([cluster_of(folder) for folder in folders])
            name = ", ".join(str(folder.path) for folder in folders)
        else:
            job = jobs.load_job(sources[0], words=words, **overrides)
            found = measured(job)
            place = isinstance(sources[0], (os.PathLike, str))
            file = os.fspath(sources[0]) if place else job.name
            changes = [f"{key}={value}" for key, value in overrides.items()]
            name = f"{' '.join([str(file), *words, *changes])}, measured on this machine"
    # What simulate would not take must not be written.
    parse_cluster(name, {key: value for key, value in found.items() if key != "workers"})
    return Calibration(found, name)


def _is_run(source: Any) -> bool:
    place = isinstance(source, (os.PathLike, str))
    return isinstance(source, Run) or (place and Path(source).is_dir())


def measured(job: Job) -> dict[str, Any]:
    """This machine as a cluster whose every worker is a process on it."""
    with job.importing():
        return _measured(job)


def _measured(job: Job) -> dict[str, Any]:
    workshop = Workshop.open(job, pick_device(job.device, 0))
    learner = workshop.learner(workshop.flat_model(workshop.device))
    steps_s = measure_steps(learner, _STEPS)
    server = workshop.server(1, _CPU)
    wire, service = server.wire, _service(workshop, server)
    message_s = measure_message_s((wire.push_bytes + wire.reply_bytes) // 2)
    return {
        "delays": {"model": "empirical", "steps_s": [steps_s]},
        "network": {"latency_s": float(f"{message_s:.6g}")},
        "server": settings_of(service),
    }


def cluster_of(folder: RunFolder) -> dict[str, Any]:
    """The cluster that a run took place on, its service time measured on this machine.

    Raises:
        RunFolderError: The run did not complete, or is not asynchronous.
    """
    job = load_job(folder.job_yaml)
    with job.importing():
        workshop = Workshop.open(job, _CPU)
        server = workshop.server(1, _CPU)
        size = HEADER_BYTES + FLOAT_BYTES * server.layout.size
        service = _service(workshop, server)
        return cluster_of_run(folder, service, size=size, servers=job.servers)


def linked_cluster_of(folder: RunFolder) -> tuple[dict[str, Any], int]:
    """The cluster that a run took place on with the bandwidth of its links, and a push's bytes.

    Raises:
        RunFolderError: As ``cluster_of``; or the run waited for no link.
    """
    job = load_job(folder.job_yaml)
    with job.importing():
        workshop = Workshop.open(job, _CPU)
        server = workshop.server(1, _CPU)
        size = HEADER_BYTES + FLOAT_BYTES * server.layout.size
        exchange = parse_cluster("", {"exchange": exchange_of(job)}).exchange
        service = _service(workshop, server)
        return linked_cluster_of_run(folder, service, size, exchange), size


def shared_link_of(alone: RunFolder, together: RunFolder) -> tuple[dict[str, Any], int]:
    """The cluster of a run by one worker, whose links those of another shared, and a push's bytes.

    Raises:
        RunFolderError: As ``linked_cluster_of``.
    """
    cluster, size = linked_cluster_of(alone)
    cluster["network"]["late_share"] = late_share_of_run(together, cluster, size)
    return cluster, size


def _service(workshop: Workshop, server: ParameterServer) -> ServerTimes:
    """Measure the job's own server, beside one that differs in the length of its vectors alone."""
    short = ParameterServer(
        torch.zeros(ALIGN),
        FlatLayout((), (), ALIGN, 0),
        server.rule,
        server.plan,
        server.schedule,
        1,
        torch.empty(0),
        wire=WireSettings(push=server.wire.push, reply=server.wire.reply),
    )
    return measure_service(server, short, _PUSHES)
