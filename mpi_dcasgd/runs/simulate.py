"""Simulate a run on a cluster that is only described, in virtual time."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from mpi_dcasgd.config.load import Override, parse_overrides
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.simulated import check_injected
from mpi_dcasgd.config.yaml12 import dump_yaml
from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.drivers.simulation.asynchronous import Simulator
from mpi_dcasgd.drivers.simulation.synchronous import SynchronousSimulator
from mpi_dcasgd.drivers.simulation.timing import Timing, simulate_synchronous_timing
from mpi_dcasgd.drivers.simulation.timing import simulate_timing as simulate_asynchronous_timing
from mpi_dcasgd.drivers.world import pick_device
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.flat import FlatLayout
from mpi_dcasgd.learning.loaders.pool import Loaders
from mpi_dcasgd.learning.outline import model_of, sizes_of
from mpi_dcasgd.learning.settings import Count, Seed
from mpi_dcasgd.modules import searching
from mpi_dcasgd.record.atomic import write_atomic
from mpi_dcasgd.record.environment import git_state
from mpi_dcasgd.record.settings import RecordSettings
from mpi_dcasgd.runs.arguments import check_arguments, several
from mpi_dcasgd.runs.build import Workshop, start_loaders
from mpi_dcasgd.runs.given import GivenTask
from mpi_dcasgd.runs.jobs import JobSource, folders_of, resolve_job, with_task
from mpi_dcasgd.runs.process import process_as_it_was, run_of_one_process
from mpi_dcasgd.runs.recording import Recording
from mpi_dcasgd.runs.result import Run
from mpi_dcasgd.runs.resume import AUTO
from mpi_dcasgd.runs.simulation import (
    Simulation,
    resolve_simulation,
    split_keywords,
    split_overrides,
)
from mpi_dcasgd.runs.virtual import VirtualSetup, run_virtually
from mpi_dcasgd.server.header import HEADER_BYTES
from mpi_dcasgd.wording import counted

_EVENTS, _LINES = 200, 20  # progress events and progress lines of a run, about


def simulate(
    job: JobSource,
    *,
    task: GivenTask | None = None,
    workers: Count | None = None,
    cluster: Path | str | Mapping[str, Any] | None = None,
    delay_seed: Seed | None = None,
    run_dir: Path | str | None = None,
    resume: Path | str = AUTO,
    overwrite: bool = False,
    checkpoint_every: Count | None = None,
    show: TextIO | None = None,
    stop: StopFlag | None = None,
    words: str | Sequence[str] = (),
    argv: str | Sequence[str] | None = None,
    started: float | None = None,
    **overrides: Any,
) -> Run:
    """Simulate a run, with gradients, and write an ordinary run folder.

    Args:
        job: A job's file, its content as a mapping, or a job.
        task: A task of one's own in place of the job's, as in ``load_job``.
        workers: How many are simulated, without the server; None for those of ``cluster``.
        cluster: A file of ``calibrate``, or its content: delays, network, server, slow, pauses,
            crashes (docs/simulator.md). Each of these may also be a keyword of its own.
        delay_seed: Seed of the delays; None for the job's.
        run_dir: The run folder; None to have one named after the job in ``runs/``.
        resume: ``auto`` for the newest checkpoint in ``run_dir``, ``never``, a checkpoint's file,
            or another run's folder.
        overwrite: Replace a finished run that ``run_dir`` holds.
        checkpoint_every: Epochs from one checkpoint to the next: ``checkpoint.every`` of the job.
        show: Where progress is shown, such as ``sys.stdout``; None for nowhere.
        stop: Ends the run at a safe point when it is set. None for one of its own, which signals
            (``drivers.signals.SIGNALS``) set meanwhile, if this is the main thread.
        words: Changes as on the command line, ``key=value``, of the job and of the cluster.
        argv: The command line, for the record; None for this process's own.
        started: When start-up began, in ``time.monotonic``'s seconds; None for this call.
        **overrides: Changes of the job and of the cluster by key, which go before ``words``.

    Returns:
        The run; its status is ``interrupted`` if it was stopped.

    Raises:
        ConfigError: The job or the cluster is wrong.
        DataError: The data are missing or not what the job says.
        RunFolderError: The folder cannot be used, or the checkpoint is of another simulation.
        KeyboardInterrupt: Ctrl-C has stopped the run, which is saved (docs/python.md).

    Example:
        Four workers, of which one takes three times as long::

            run = simulate("jobs/digits.yaml", workers=4, delays="gamma", slow={2: 3})
            print(run.summary["test_error"], run.summary["staleness_mean"])
    """
    check_arguments(simulate, locals())
    started = time.monotonic() if started is None else started
    argv = None if argv is None else several(argv)
    own = {"workers": workers, "cluster": cluster, "delay_seed": delay_seed}
    overrides = with_task(overrides, task)
    overrides |= {key: value for key, value in own.items() if value is not None}
    if checkpoint_every is not None:
        overrides["checkpoint.every"] = checkpoint_every
    checked, simulation = _resolve(job, several(words), overrides)
    flag = StopFlag() if stop is None else stop
    with (
        process_as_it_was(),
        checked.importing(),
        flag.listening() if stop is None else nullcontext(),
        start_loaders(checked) as loaders,
    ):
        setup = _setup(checked, simulation, loaders)
        recording = Recording(
            checked,
            None if run_dir is None else Path(run_dir),
            argv,
            git_state(),
            overwrite=overwrite,
            resume=os.fspath(resume),
            virtual={
                "workers": simulation.workers,
                "delay_seed": simulation.delay_seed,
                "cluster": simulation.settings,
            },
            show=show,
        )
        try:
            settings = {"workers": simulation.workers, **simulation.settings}
            write_atomic(recording.folder.cluster_yaml, dump_yaml(settings).encode())
            run_virtually(
                recording,
                setup,
                flag,
                started,
                ending=lambda seconds: (
                    f"simulated {setup.run.time_s:.6g} s of "
                    f"{counted(simulation.workers, 'worker')} in {seconds:.1f} s"
                ),
            )
        finally:
            recording.close()
    return run_of_one_process(recording.folder.path, flag, own=stop is None)


def simulate_timing(
    job: JobSource,
    *,
    task: GivenTask | None = None,
    workers: Count | None = None,
    cluster: Path | str | Mapping[str, Any] | None = None,
    delay_seed: Seed | None = None,
    updates: Count | None = None,
    words: str | Sequence[str] = (),
    **overrides: Any,
) -> Timing:
    """Simulate throughput, staleness and utilisation, without computing any gradient.

    Args:
        job: As in ``simulate``; its model gives the size of messages, its rule what is admitted.
        task: As in ``simulate``.
        workers: As in ``simulate``.
        cluster: As in ``simulate``.
        delay_seed: As in ``simulate``.
        updates: How many to make; None for as many as the job would.
        words: As in ``simulate``.
        **overrides: As in ``simulate``.

    Raises:
        ConfigError: The job or the cluster is wrong.

    Example:
        >>> timing = simulate_timing("jobs/digits.yaml", workers=8, delays="constant")
        >>> timing.staleness_quantile(0.5)
        7
    """
    check_arguments(simulate_timing, locals())
    own = {"workers": workers, "cluster": cluster, "delay_seed": delay_seed}
    overrides = with_task(overrides, task)
    overrides |= {key: value for key, value in own.items() if value is not None}
    checked, simulation = _resolve(job, several(words), overrides)
    with checked.importing():
        task = checked.make_task()
        sizes = sizes_of(task, checked.seed, checked.data.validation)
        layout = FlatLayout.of(model_of(task, checked.seed), checked.grouping)
    vector_bytes = 4 * layout.size
    synchronous = checked.mode == "synchronous"
    admission = checked.rule.admission
    if updates is None:
        group = simulation.workers * checked.sync.accumulate if synchronous else 1
        minibatch = checked.batch_size * group
        tickets = checked.epochs * -(-sizes.num_train // minibatch)
        updates = -(-tickets // admission.collect(simulation.workers))
    seed = checked.seed if simulation.delay_seed is None else simulation.delay_seed
    if synchronous:
        return simulate_synchronous_timing(
            simulation.cluster,
            simulation.workers,
            updates,
            backup=checked.sync.backup,
            accumulate=checked.sync.accumulate,
            message_bytes=vector_bytes,
            seed=seed,
        )
    return simulate_asynchronous_timing(
        simulation.cluster,
        simulation.workers,
        updates,
        message_bytes=HEADER_BYTES + vector_bytes,
        seed=seed,
        admission=admission,
    )


def _resolve(
    job: JobSource, words: Sequence[str], overrides: Mapping[str, Any]
) -> tuple[Job, Simulation]:
    """The job, and where it is simulated.

    Raises:
        ConfigError: Either is wrong, or they do not go together.
    """
    mine, theirs = split_overrides(words)
    more, others = split_keywords(overrides)
    with searching(*folders_of(job), fresh=True):
        simulation = resolve_simulation(mine, more)
    pairs, problems = parse_overrides(theirs)
    pairs += others
    checked = resolve_job(job, pairs, problems)
    described = any(key == "cluster" for key, _ in [*parse_overrides(mine)[0], *more])
    _check(checked, simulation, pairs, described=described)
    # What a cluster says is all that there is: one that was calibrated has measured the rest, too.
    return checked, simulation if described else simulation.with_injected(checked)


def _check(job: Job, simulation: Simulation, pairs: Sequence[Override], *, described: bool) -> None:
    problems = []
    if job.mode == "sequential" and simulation.workers != 1:
        problems.append(f"workers: {job.algorithm} is one process; give workers=1, or asgd")
    if not described:
        problems += check_injected(job, simulation.workers)
    for key, value in pairs:
        section, _, rest = key.partition(".")
        if section != "inject":
            continue
        names = [rest.partition(".")[0]] if rest else list(value or ())
        for name in names:
            if described or name in simulation.settings:
                problems.append(
                    f"{key}: has no effect here: {name} is the cluster's to say; set {name}=..."
                )
    if problems:
        raise ConfigError("simulation", problems)


def _setup(job: Job, simulation: Simulation, loaders: Loaders) -> VirtualSetup:
    device = pick_device(job.device, 0)
    workers, seed = simulation.workers, simulation.delay_seed
    seed = job.seed if seed is None else seed
    synchronous = job.mode == "synchronous"
    group = workers * job.sync.accumulate if synchronous else 1
    workshop = Workshop.open(job, device, group, loaders=loaders)
    slots = 1 if synchronous else workers
    workshop.check_memory(slots)
    server = workshop.server(slots, device)
    learner = workshop.learner(workshop.flat_model(device))
    workshop.try_metrics()
    run: Simulator | SynchronousSimulator
    if synchronous:
        run = SynchronousSimulator(
            server,
            learner,
            simulation.cluster,
            workers,
            job.sync.backup,
            seed,
            accumulate=job.sync.accumulate,
        )
    else:
        run = Simulator(server, learner, simulation.cluster, seed)
    run_s = simulation.cluster.until_s
    if run_s is None:
        run_s = _expected_s(job, simulation, server.plan.total_samples)
    return VirtualSetup(
        run=run,
        server=server,
        workshop=workshop,
        driver="simulator",
        num_workers=workers,
        world_size=job.world(workers).world_size,
        settings=_paced(job.record, run_s),
    )


def _expected_s(job: Job, simulation: Simulation, total_samples: int) -> float:
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
