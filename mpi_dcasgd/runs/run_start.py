"""Start of a run: its folder, and the description that its records carry."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.learning.near_hooks import unread
from mpi_dcasgd.learning.outline import model_of
from mpi_dcasgd.record.description import RunDescription
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.rules.compatibility import remarks
from mpi_dcasgd.runs.build import Workshop
from mpi_dcasgd.runs.idle_settings import idle_beside
from mpi_dcasgd.runs.resume import Checkpoint
from mpi_dcasgd.server.server import ParameterServer
from mpi_dcasgd.wording import counted


def make_folder(
    job: Job,
    run_dir: Path | None,
    checkpoint: Checkpoint | None,
    *,
    now: datetime,
    overwrite: bool,
    ours: bool,
) -> RunFolder:
    """Make the run folder, or open it to go on with what it holds.

    Args:
        job: What is run.
        run_dir: The folder that the user asked for, or None to name one after the run.
        checkpoint: What the run goes on from; its records are copied from another folder.
        now: When the run starts.
        overwrite: Replace a finished run.
        ours: ``run_dir`` is known to be a run's.

    Raises:
        RunFolderError: The folder cannot be used.
    """
    continued = checkpoint is not None and checkpoint.has_records
    origin = checkpoint.folder if checkpoint and continued else None
    same = origin is not None and run_dir is not None and _same(origin.path, run_dir)
    folder = RunFolder.create(
        run_dir,
        name=job.name,
        algorithm=job.algorithm,
        now=now.astimezone(),
        overwrite=overwrite,
        keep=same,
        ours=ours,
    )
    if origin is not None and not same:
        folder.copy_records(origin)
    return folder


def describe_run(
    job: Job,
    driver: str,
    num_workers: int,
    world_size: int,
    server: ParameterServer,
    workshop: Workshop,
) -> RunDescription:
    """Describe a run as its events and its trace begin with it.

    Args:
        job: What is run.
        driver: Who moves the server.
        num_workers: Without the server.
        world_size: With it.
        server: At the start of the run.
        workshop: Has the task.
    """
    return RunDescription(
        name=job.name,
        algorithm=job.algorithm,
        driver=driver,
        num_workers=num_workers,
        world_size=world_size,
        epochs=job.epochs,
        seed=job.seed,
        model=job.model.name,
        data=job.data.name,
        batch_size=job.batch_size,
        num_samples=server.plan.num_samples,
        kernel=server.chain.kernel,
        **workshop.measures.as_recorded(),
    )


def who_trains(job: Job, driver: str, num_workers: int) -> str:
    """Return a few words for people on who trains, and how.

    Example:
        >>> from mpi_dcasgd.runs.jobs import load_job
        >>> from mpi_dcasgd.shipped import shipped
        >>> job = load_job(shipped("jobs/digits.yaml"), algorithm="asgd")
        >>> who_trains(job, "mpi", 4)
        'asgd, 1 server and 4 workers, asynchronous over MPI'
    """
    algorithm, servers = job.algorithm, job.servers
    if driver == "sequential":
        return f"{algorithm}, one process"
    workers = counted(num_workers, "worker")
    if driver == "simulator":
        return f"{algorithm}, {workers}, simulated"
    if driver in ("horovod", "ddp"):
        through = "Horovod" if driver == "horovod" else "torch.distributed"
        return f"{algorithm}, {workers}, synchronous through {through}"
    if driver == "replay":
        return f"{algorithm}, {workers}, in a recorded order"
    serving = counted(servers, "server")
    return f"{algorithm}, {serving} and {workers}, asynchronous over MPI"


def remarks_on(job: Job, workshop: Workshop) -> list[str]:
    """Return a line for each thing in a job that may not do what its author expects.

    Args:
        job: What is run.
        workshop: Has the task, whose model some settings may find nothing to do with.
    """
    idle = idle_beside(job, lambda: model_of(workshop.subject.task, job.seed))
    return [*remarks(job.rule), *idle, *unread(workshop.subject.task)]


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)
