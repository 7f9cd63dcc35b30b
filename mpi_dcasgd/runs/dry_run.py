"""``--dry-run``: what would be started, and what it would need."""

from __future__ import annotations

from mpi_dcasgd.config.plan import Need, Plan, plan_job
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.topology import Topology

ASSUMED_WORKERS = 4
"""Workers that are planned for when nothing says how many there will be."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def describe_needs(job: Job, ranks: int | None) -> str:
    """The ranks of a job and the memory that they need, in text.

    Args:
        job: Checked.
        ranks: Processes; None if that is not known.

    Raises:
        LaunchError: The algorithm cannot be run by so many.
        DataError: The data are needed to know their shape, and are not there.
    """
    import torch  # the size of a model needs it, and a job is shown before

    assumed = ranks is None
    if ranks is None:
        ranks = job.world(1 if job.mode == "sequential" else ASSUMED_WORKERS).world_size
    gpu = job.device == "cuda" or (job.device == "auto" and torch.cuda.is_available())
    plan = plan_job(job, ranks, gpu=gpu)
    return "\n".join(
        [
            *_facts(plan, gpu=gpu, assumed=assumed and job.mode != "sequential"),
            "",
            "memory for vectors (activations, libraries and MPI's own buffers not counted):",
            *(line for need in plan.needs for line in _memory(need)),
        ]
    )


def amount(size: int) -> str:
    """Bytes in the largest unit that leaves a number of at least one: ``1.05 MiB``."""
    value, unit = float(size), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_UNITS[0]}" if unit == 0 else f"{value:.2f} {_UNITS[unit]}"


def _facts(plan: Plan, *, gpu: bool, assumed: bool) -> list[str]:
    trains = Topology(plan.mode, plan.num_workers).worker_ranks
    if plan.mode == "sequential":
        ranks = "1 process"
    elif plan.mode == "synchronous":
        ranks = f"{plan.world_size}; all of them train"
    else:
        first, last = trains[0], trains[-1]
        workers = f"rank {first} trains" if first == last else f"ranks {first} to {last} train"
        ranks = f"{plan.world_size}; rank 0 serves, {workers}"
    if assumed:
        ranks += " (assumed: set another number with -n N)"
    statistics = f", and {plan.num_stats:,} BatchNorm statistics" if plan.num_stats else ""
    merged = " of all workers together" if plan.mode == "synchronous" else ""
    return [
        f"ranks:      {ranks}",
        f"device:     {'GPU' if gpu else 'CPU'} (of a machine like this one)",
        f"parameters: {plan.num_params:,} trainable{statistics}",
        f"tickets:    {plan.tickets_per_epoch:,} an epoch{merged}, {plan.num_samples:,} samples",
        f"updates:    {plan.tickets:,}",
        *([_messages(plan)] if plan.mode == "asynchronous" else []),
    ]


def _messages(plan: Plan) -> str:
    push, reply = amount(plan.push_bytes), amount(plan.reply_bytes)
    wire = plan.wire
    return f"messages:   {push} a push ({wire.push}), {reply} a reply ({wire.reply})"


def _memory(need: Need) -> list[str]:
    return [
        f"  {need.who}: {amount(need.total_bytes)}",
        *(f"    {amount(size):>11}  {what}" for what, size in need.items),
    ]
