"""``mpi-dcasgd simulate``: a run on a cluster that is only described, in virtual time."""

from __future__ import annotations

import argparse
import json
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, replace

_STARTED = time.monotonic()  # before the imports that make up most of start-up

import torch  # noqa: E402

from mpi_dcasgd.cli.build import Workshop  # noqa: E402
from mpi_dcasgd.cli.recording import Recording  # noqa: E402
from mpi_dcasgd.cli.simulated_cluster import (  # noqa: E402
    Simulation,
    resolve_simulation,
    split_overrides,
)
from mpi_dcasgd.config.load import load_job  # noqa: E402
from mpi_dcasgd.config.schema import Job  # noqa: E402
from mpi_dcasgd.config.yaml12 import dump_yaml  # noqa: E402
from mpi_dcasgd.drivers.conductor import Conductor  # noqa: E402
from mpi_dcasgd.drivers.evaluator import Evaluator  # noqa: E402
from mpi_dcasgd.drivers.simulator import Simulator  # noqa: E402
from mpi_dcasgd.drivers.simulator_sync import SynchronousSimulator  # noqa: E402
from mpi_dcasgd.drivers.simulator_timing import (  # noqa: E402
    Timing,
    simulate_synchronous_timing,
    simulate_timing,
)
from mpi_dcasgd.drivers.stopping import StopFlag  # noqa: E402
from mpi_dcasgd.drivers.world import pick_device  # noqa: E402
from mpi_dcasgd.errors import ConfigError  # noqa: E402
from mpi_dcasgd.learning.data import describe  # noqa: E402
from mpi_dcasgd.learning.flat import FlatLayout  # noqa: E402
from mpi_dcasgd.learning.models import build_model  # noqa: E402
from mpi_dcasgd.record.environment import RankPlace, git_state  # noqa: E402
from mpi_dcasgd.record.logs import rank_logger  # noqa: E402
from mpi_dcasgd.record.run_folder import write_atomic  # noqa: E402
from mpi_dcasgd.record.settings import RecordSettings  # noqa: E402
from mpi_dcasgd.rules.algorithms import ALGORITHMS, resolve_rule  # noqa: E402
from mpi_dcasgd.server.message import HEADER_BYTES  # noqa: E402

CLUSTER_YAML = "cluster.yaml"
_EVENTS, _LINES = 200, 20  # progress events and progress lines of a run, about


def simulate(args: argparse.Namespace) -> int:
    """The command: with gradients, into a run folder, or only the timing, onto the terminal."""
    mine, theirs = split_overrides(args.overrides)
    simulation = resolve_simulation(mine)
    job = load_job(args.job, theirs)
    _check(job, simulation)
    if args.timing_only:
        timing = simulate_job_timing(job, simulation, args.updates)
        print(_as_json(timing) if args.json else _as_text(job, timing))
        return 0
    return _Run(job, simulation, args).go()


def _check(job: Job, simulation: Simulation) -> None:
    mode = ALGORITHMS[job.algorithm].mode
    problems = []
    if mode == "sequential" and simulation.workers != 1:
        problems.append(f"workers: {job.algorithm} is one process; give workers=1, or asgd")
    if mode != "synchronous" and simulation.backup:
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
    synchronous = ALGORITHMS[job.algorithm].mode == "synchronous"
    minibatch = job.batch_size * (simulation.workers if synchronous else 1)
    if updates is None:
        updates = job.epochs * -(-facts.num_train // minibatch)
    seed = job.seed if simulation.delay_seed is None else simulation.delay_seed
    if synchronous:
        return simulate_synchronous_timing(
            simulation.cluster,
            simulation.workers,
            updates,
            backup=simulation.backup,
            message_bytes=vector_bytes,
            seed=seed,
        )
    return simulate_timing(
        simulation.cluster,
        simulation.workers,
        updates,
        message_bytes=HEADER_BYTES + vector_bytes,
        seed=seed,
        admission=resolve_rule(job.algorithm, job.rule).admission,
    )


class _Run:
    """A simulation with gradients on its way into a run folder."""

    def __init__(self, job: Job, simulation: Simulation, args: argparse.Namespace) -> None:
        self._job = job
        self._simulation = simulation
        self._args = args
        self._synchronous = ALGORITHMS[job.algorithm].mode == "synchronous"
        self._stop = StopFlag()

    def go(self) -> int:
        job, simulation = self._job, self._simulation
        self._stop.listen()
        git = git_state()
        device = pick_device(job.device, 0)
        group = simulation.workers if self._synchronous else 1
        workshop = Workshop.open(job, device, group)
        server = workshop.server(1 if self._synchronous else simulation.workers, device)
        task = workshop.task(workshop.flat_model(device))
        seed = job.seed if simulation.delay_seed is None else simulation.delay_seed
        made: Simulator | SynchronousSimulator
        if self._synchronous:
            made = SynchronousSimulator(
                server,
                task,
                simulation.cluster,
                simulation.workers,
                simulation.backup,
                seed,
                self._stop,
            )
        else:
            made = Simulator(server, task, simulation.cluster, seed, self._stop)
        recording = Recording(
            job, self._args.run_dir, self._args.argv, git, overwrite=self._args.overwrite
        )
        logger = rank_logger(recording.folder, 0)
        text = dump_yaml({"workers": simulation.workers, **simulation.settings})
        write_atomic(recording.folder.path / CLUSTER_YAML, text.encode())
        place = RankPlace(rank=0, role="trainer", host=socket.gethostname(), device=str(device))
        observer = recording.recorder(
            "simulator",
            simulation.workers,
            [place],
            server,
            logger,
            settings=_paced(job.record, expected_s(job, simulation, server.plan.total_samples)),
            world_size=simulation.workers + (not self._synchronous),
        )
        evaluator = Evaluator(workshop.flat_model(device), workshop.dataset, background=False)
        conductor = Conductor(
            server, observer, evaluator, job.evaluate_every, clock=lambda: made.time_s
        )
        made.told = conductor.after
        conductor.begin(time.monotonic() - _STARTED)
        began = time.monotonic()
        try:
            made.run()
        except BaseException as error:
            logger.error("the simulation failed", exc_info=True)
            observer.ended("failed", made.time_s, reason=f"{type(error).__name__}: {error}")
            raise
        observer.message(
            f"simulated {made.time_s:.6g} s of {simulation.workers} workers in "
            f"{time.monotonic() - began:.1f} s"
        )
        conductor.finish(
            made.totals(),
            reason="" if server.complete else f"stopped by signal {self._stop.signum}",
            closing=lambda: recording.write_weights(workshop, server),
        )
        return 128 + self._stop.signum if self._stop and self._stop.signum else 0


def expected_s(job: Job, simulation: Simulation, total_samples: int) -> float:
    """About how many virtual seconds a run will take, from means alone."""
    cluster, workers = simulation.cluster, simulation.workers
    step_s = float(cluster.delays.mean_s) + 2 * cluster.network.latency_s
    each_s = max(step_s / workers, cluster.server.service_s)
    return total_samples / job.batch_size * each_s


def _paced(record: RecordSettings, run_s: float) -> RecordSettings:
    """Records as often as virtual time asks for: it has no relation to a person's patience."""
    least = 1e-9
    return replace(
        record,
        progress="lines" if record.progress == "auto" else record.progress,
        line_every_s=max(run_s / _LINES, least),
        log_every_s=max(run_s / _EVENTS, least),
        trace_flush_s=max(run_s / _EVENTS, least),
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
    return "\n".join([head, *(f"  {name:<13} {value}" for name, value in rows)])
