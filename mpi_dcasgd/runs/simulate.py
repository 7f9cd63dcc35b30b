"""``mpi-dcasgd simulate``: a run on a cluster that is only described, in virtual time."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

import torch

from mpi_dcasgd import STARTED
from mpi_dcasgd.config.load import load_job
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.simulation.timing import (
    Timing,
    simulate_synchronous_timing,
    simulate_timing,
)
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.data import describe
from mpi_dcasgd.learning.flat import FlatLayout
from mpi_dcasgd.learning.models import build_model
from mpi_dcasgd.runs.simulated import SimulatedRun
from mpi_dcasgd.runs.simulation import (
    Simulation,
    resolve_simulation,
    split_overrides,
)
from mpi_dcasgd.server.header import HEADER_BYTES

_SETTLED = 10
"""Updates a worker before throughput and staleness are near what they come to."""


def simulate(args: argparse.Namespace) -> int:
    """The command: with gradients, into a run folder, or only the timing, onto the terminal."""
    mine, theirs = split_overrides(args.overrides)
    simulation = resolve_simulation(mine)
    job = load_job(args.job, theirs)
    _check(job, simulation, theirs)
    if args.timing_only:
        timing = simulate_job_timing(job, simulation, args.updates)
        print(_as_json(timing) if args.json else _as_text(job, timing))
        return 0
    if args.updates is not None:
        raise ConfigError(
            "command line", ["--updates: only with --timing-only; epochs=N is for the job"]
        )
    if args.resume and args.run_dir is None:
        raise ConfigError("command line", ["--resume: say with --run-dir which run goes on"])
    run = SimulatedRun(job, simulation, args.checkpoint_every)
    return run.go(args.run_dir, args.argv, STARTED, overwrite=args.overwrite, resume=args.resume)


def _check(job: Job, simulation: Simulation, words: Sequence[str]) -> None:
    mode = job.mode
    problems = []
    if mode == "sequential" and simulation.workers != 1:
        problems.append(f"workers: {job.algorithm} is one process; give workers=1, or asgd")
    if mode != "synchronous" and any(word.startswith("sync.backup=") for word in words):
        problems.append("backup: only synchronous algorithms have backup workers")
    if problems:
        raise ConfigError("command line", problems)


def simulate_job_timing(job: Job, simulation: Simulation, updates: int | None = None) -> Timing:
    """Throughput, staleness and utilisation of a job, without computing any gradient.

    Args:
        job: Its model gives the size of messages, its rule what is admitted.
        simulation: Workers and cluster.
        updates: How many to make; by default as many as the job would.
    """
    facts = describe(job.data)
    with torch.device("meta"):
        model = build_model(job.model, facts.input_shape, facts.num_classes)
    vector_bytes = 4 * FlatLayout.of(model).size
    synchronous = job.mode == "synchronous"
    admission = job.rule.admission
    if updates is None:
        group = simulation.workers * job.sync.accumulate if synchronous else 1
        minibatch = job.batch_size * group
        tickets = job.epochs * -(-facts.num_train // minibatch)
        updates = -(-tickets // admission.collect(simulation.workers))
    seed = job.seed if simulation.delay_seed is None else simulation.delay_seed
    if synchronous:
        return simulate_synchronous_timing(
            simulation.cluster,
            simulation.workers,
            updates,
            backup=job.sync.backup,
            accumulate=job.sync.accumulate,
            message_bytes=vector_bytes,
            seed=seed,
        )
    return simulate_timing(
        simulation.cluster,
        simulation.workers,
        updates,
        message_bytes=HEADER_BYTES + vector_bytes,
        seed=seed,
        admission=admission,
    )


def _as_json(timing: Timing) -> str:
    values = asdict(timing) | {
        "updates_per_s": timing.updates_per_s,
        "staleness_mean": timing.staleness_mean,
        "workers_busy": sum(timing.workers_busy) / len(timing.workers_busy),
    }
    return json.dumps(values)


def _as_text(job: Job, timing: Timing) -> str:
    busy = timing.workers_busy
    rows: Sequence[tuple[str, str]] = (
        ("updates", f"{timing.updates} in {timing.time_s:.6g} s"),
        ("throughput", f"{timing.updates_per_s:.6g} updates/s"),
        (
            "staleness",
            f"mean {timing.staleness_mean:.2f}, median {timing.staleness_quantile(0.5)}, "
            f"99 % {timing.staleness_quantile(0.99)}, max {max(timing.staleness, default=0)}",
        ),
        ("server busy", f"{100 * timing.server_busy:.1f} %"),
        (
            "workers busy",
            f"mean {100 * sum(busy) / len(busy):.1f} %, least {100 * min(busy):.1f} %",
        ),
        ("dropped", str(timing.dropped)),
        ("crashes", str(timing.crashes)),
    )
    head = f"{job.name}: {job.algorithm}, {timing.num_workers} simulated workers, timing only"
    lines = [head, *(f"  {name:<13} {value}" for name, value in rows)]
    if job.mode == "synchronous":
        return "\n".join(lines)
    if timing.updates < _SETTLED * timing.num_workers:
        enough = 10 * _SETTLED * timing.num_workers
        lines.append(
            f"  Figures of a start, {timing.updates} updates of {timing.num_workers} workers;"
            f" for those of a cluster at work: --updates {enough}"
        )
    return "\n".join(lines)
