"""Run folders of runs that never were, written by the recorder itself so that no format drifts."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.drivers.observer import Evaluation, Status
from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.record.atomic import write_atomic
from mpi_dcasgd.record.description import RunDescription
from mpi_dcasgd.record.environment import RankPlace, describe_environment
from mpi_dcasgd.record.recorder import Recorder
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.settings import RecordSettings
from mpi_dcasgd.server.records import Action, UpdateRecord

DRIVERS = {"sgd": "sequential", "ssgd": "horovod"}
CLASSIFICATION = Measures()
LOSS = {"loss": 0.5}
NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


def synthetic_run(
    root: Path,
    algorithm: str = "asgd",
    *,
    workers: int = 4,
    seed: int = 1,
    epochs: int = 5,
    final_error: float = 0.03,
    first_error: float = 0.3,
    rate: float = 10_000.0,
    job: Mapping[str, Any] | None = None,
    status: Status | None = "completed",
    dropped: int = 0,
    driver: str | None = None,
    cpus: int = 64,
    measures: Measures = CLASSIFICATION,
    more: Mapping[str, float] = LOSS,
    validation: float | None = None,
) -> Path:
    """One run of 1,000 samples an epoch in batches of 50.

    The error falls geometrically from ``first_error`` after the first epoch to ``final_error``; so
    does, or rises, any other primary metric.

    Args:
        status: How it ended; None for a run that was killed in its last epoch.
        rate: Samples a second.
        job: Changes of the job file, dotted keys not resolved.
        dropped: Gradients that the rule dropped.
        cpus: Processors of the machine.
        measures: The metrics of the task.
        more: Metrics beside the primary one.
        validation: The primary metric on the validation split over that on the test split, where
            there is one.
    """
    rng = random.Random(f"{algorithm} {workers} {seed}")
    driver = driver or DRIVERS.get(algorithm, "mpi")
    workers = 1 if driver == "sequential" else workers
    folder = RunFolder.create(None, name="digits", algorithm=algorithm, now=NOW, root=root)
    written: dict[str, Any] = {
        "name": "digits",
        "algorithm": algorithm,
        "model": {"name": "mlp", "hidden": 64},
        "data": {"name": "digits"},
        "batch_size": 50,
        "epochs": epochs,
        "seed": seed,
        "lr": {"name": "step", "base": 0.1},
        "rule": {"compensation": {"name": "dc-constant" if "-c" in algorithm else "none"}},
        "record": {"progress": "auto"},
    }
    text = yaml.safe_dump(written | dict(job or {}), sort_keys=False, allow_unicode=True)
    write_atomic(folder.job_yaml, text.encode())
    ranks = workers + (driver == "mpi")
    folder.write_environment(
        describe_environment(
            started=NOW,
            git={"commit": "0123456789abcdef", "dirty": False, "changes": ""},
            ranks=[
                RankPlace(rank=rank, role="worker", host="c1", device="cpu")
                for rank in range(ranks)
            ],
            mpi_library="Open MPI v5.0.11",
            argv=["mpi-dcasgd", "train"],
            environ={},
        )
        | {"cpus": cpus, "cpu": "Imagined CPU"}
    )
    run = RunDescription(
        name="digits",
        algorithm=algorithm,
        driver=driver,
        num_workers=workers,
        world_size=ranks,
        epochs=epochs,
        seed=seed,
        model="mlp",
        data="digits",
        batch_size=50,
        num_samples=1_000,
        **measures.as_recorded(),
    )
    recorder = Recorder(folder, run, RecordSettings(), stream=io.StringIO(), environ={})
    recorder.started(1.5)
    killed = status is None
    ends = (first_error, final_error)
    time_s = _pushes(recorder, run, rng, rate, ends, dropped, killed, more, validation)
    if status is None:
        recorder.close()
        return folder.path
    for worker in range(workers):
        recorder.worker(
            Account(
                worker=worker,
                host="c1",
                device="cpu",
                updates=20 * epochs // workers,
                compute_s=0.8 * time_s,
                data_s=0.05 * time_s,
                wait_s=0.1 * time_s,
                comm_s=0.05 * time_s,
            )
        )
    recorder.ended(
        status,
        time_s,
        weights_sha256=f"{seed:064x}",
        reason="" if status == "completed" else "rank 2 on c7: out of memory",
    )
    return folder.path


def _pushes(
    recorder: Recorder,
    run: RunDescription,
    rng: random.Random,
    rate: float,
    ends: tuple[float, float],
    dropped: int,
    killed: bool,
    more: Mapping[str, float],
    validation: float | None,
) -> float:
    first_error, final_error = ends
    time_s, luck = 0.0, rng.uniform(0.85, 1.15)
    for version in range(20 * run.epochs - killed):
        time_s += 50 / rate * rng.uniform(0.8, 1.2)
        samples = 50 * (version + 1)
        staleness = 0 if run.driver != "mpi" else min(version, _delay(rng, run.num_workers))
        record = UpdateRecord(
            worker=version % run.num_workers,
            ticket=version,
            version=version,
            staleness=staleness,
            action=Action.APPLIED,
            samples=50,
            loss=2.3 / (1 + version / 20),
            grad_norm=1.0,
            lr=0.1,
            total_samples=samples,
            epoch=samples / 1_000,
        )
        if version < dropped:
            recorder.update(record._replace(action=Action.DROPPED), time_s)
        recorder.update(record, time_s)
        if samples % 1_000 == 0:
            epoch = samples // 1_000
            fall = (final_error / first_error) ** ((epoch - 1) / max(1, run.epochs - 1))
            value = first_error * fall * luck * rng.uniform(0.95, 1.05)
            test = {run.primary_metric: value, **more}
            recorder.evaluation(
                Evaluation(
                    time_s=time_s,
                    eval_s=0.01,
                    version=version + 1,
                    samples=samples,
                    epoch=epoch,
                    test=test,
                    validation=None
                    if validation is None
                    else test | {run.primary_metric: validation * value},
                    train_loss=0.4,
                    lr=0.1,
                )
            )
    return time_s


def _delay(rng: random.Random, workers: int) -> int:
    return max(0, round(rng.gauss(workers - 1, workers / 6)))
