"""``mpi-dcasgd calibrate``: a cluster description for ``simulate``, from runs or this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from mpi_dcasgd.cli.build import Workshop
from mpi_dcasgd.config.load import load_job
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.yaml12 import dump_yaml
from mpi_dcasgd.drivers.cluster import parse_cluster
from mpi_dcasgd.drivers.simulator import message_bytes
from mpi_dcasgd.drivers.world import pick_device
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.record.run_folder import RunFolder, write_atomic
from mpi_dcasgd.tools.calibrate import (
    cluster_of_run,
    measure_message_s,
    measure_service_s,
    measure_steps,
    merged,
)

_CPU = torch.device("cpu")
_STEPS, _PUSHES = 200, 200


def calibrate(args: argparse.Namespace) -> int:
    """The command: write the description of a cluster to a file, or to the terminal."""
    folders = [path for path in args.sources if path.is_dir()]
    files = [path for path in args.sources if not path.is_dir()]
    if bool(folders) == bool(files) or len(files) > 1 or (folders and args.overrides):
        raise ConfigError(
            "command line",
            ["give the folders of one or more runs, or one job file and --set for changes to it"],
        )
    if files:
        settings = measured(load_job(files[0], args.overrides))
        source = f"{' '.join([str(files[0]), *args.overrides])}, measured on this machine"
    else:
        settings = merged([cluster_of(RunFolder.open(path)) for path in folders])
        source = ", ".join(map(str, folders))
    # What simulate would not take must not be written.
    parse_cluster(source, {key: value for key, value in settings.items() if key != "workers"})
    text = f"# Calibrated from {source}.\n{dump_yaml(settings)}"
    if args.out is None:
        print(text, end="")
    else:
        write_atomic(args.out, text.encode())
        print(_summary(settings, args.out))
    return 0


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


def _summary(settings: dict[str, Any], out: Path) -> str:
    lists = settings["delays"]["steps_s"]
    means = ", ".join(f"{1e3 * sum(steps) / len(steps):.3g}" for steps in lists)
    return (
        f"step {means} ms, message {1e3 * settings['network']['latency_s']:.3g} ms, "
        f"service {1e3 * settings['server']['service_s']:.3g} ms\n"
        f"cluster: {out} (simulate with cluster={out})"
    )
