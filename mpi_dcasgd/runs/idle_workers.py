"""Workers that get no minibatch, since there are fewer minibatches than workers."""

from __future__ import annotations

from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.server.server import ParameterServer
from mpi_dcasgd.wording import counted

IDLE_WORKERS = "idle workers"
"""Kind of the warning."""


def idle_at_start(job: Job, server: ParameterServer, num_workers: int) -> str:
    """Say how many workers of a run that begins or resumes get nothing to do; empty if none.

    Args:
        job: Checked.
        server: Before any worker has pulled.
        num_workers: Of the run.
    """
    left = server.ledger.available
    resumed = left < server.ledger.num_tickets
    return idle_workers(job, num_workers, left, server.plan.num_samples, resumed=resumed)


def idle_workers(
    job: Job, num_workers: int, tickets: int, num_samples: int, *, resumed: bool = False
) -> str:
    """Say how many workers get nothing to do; empty if all get something.

    Args:
        job: Checked.
        num_workers: Of the run.
        tickets: Of the whole run, or left of it.
        num_samples: Of an epoch.
        resumed: The run has done others before.

    Example:
        >>> from mpi_dcasgd.runs.jobs import load_job
        >>> from mpi_dcasgd.shipped import shipped
        >>> job = load_job(shipped("jobs/digits.yaml"), algorithm="asgd", ahead=0)
        >>> idle_workers(job, num_workers=8, tickets=7, num_samples=1437)
        '1 of 8 workers gets no minibatch: the run has only 7; use fewer workers, a smaller \
batch_size or more epochs'
    """
    if job.mode == "synchronous":
        minibatches = -(-num_samples // job.batch_size)
        busy, where = minibatches, f"an epoch has only {minibatches}"
        remedy = "use fewer workers or a smaller batch_size"
    else:
        each = 1 + job.tickets_ahead
        busy = -(-tickets // each)
        where = f"the run has only {tickets}{' left' if resumed else ''}"
        remedy = "use fewer workers, a smaller batch_size or more epochs"
        if each > 1:
            where += f", and a worker is given {each} at a time (ahead)"
    idle = num_workers - busy
    if idle <= 0 or tickets == 0:
        return ""
    gets = "gets" if idle == 1 else "get"
    return f"{idle} of {counted(num_workers, 'worker')} {gets} no minibatch: {where}; {remedy}"
