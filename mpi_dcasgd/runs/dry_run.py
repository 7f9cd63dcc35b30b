"""``--dry-run``: what would be started, and what it would need."""

from __future__ import annotations

from mpi_dcasgd.config.needs import Need
from mpi_dcasgd.config.plan import Plan, plan_job
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.topology import Topology
from mpi_dcasgd.runs.idle_workers import idle_workers
from mpi_dcasgd.wording import counted

ASSUMED_WORKERS = 4
"""Workers that are planned for when nothing says how many there will be."""

_LONG_PUSH = 4 << 20
_LINK_BYTES_PER_S = 1.25e9

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def describe_needs(job: Job, ranks: int | None) -> str:
    """The ranks of a job and the memory that they need, in text.

    Args:
        job: Checked.
        ranks: Processes; None if that is not known.

    Raises:
        LaunchError: The algorithm cannot be run by so many.
        DataError: The data are needed to know their shape, and are not there; or the weights to
            start from are not.
    """
    import torch  # the size of a model needs it, and a job is shown before

    from mpi_dcasgd.runs.start_weights import StartWeights

    assumed = ranks is None
    if ranks is None:
        ranks = job.world(1 if job.mode == "sequential" else ASSUMED_WORKERS).world_size
    gpu = job.device == "cuda" or (job.device == "auto" and torch.cuda.is_available())
    plan = plan_job(job, ranks, gpu=gpu)
    StartWeights.of(job.start)  # here the job's author still sees that they are not there
    return "\n".join(
        [
            *_facts(plan, gpu=gpu, assumed=assumed and job.mode != "sequential"),
            "",
            "memory for vectors (activations, libraries and MPI's own buffers not counted):",
            *(line for need in plan.needs for line in _memory(need)),
            *_warnings(job, plan),
        ]
    )


def amount(size: int) -> str:
    """Bytes in the largest unit that leaves a number of at least one: ``1.05 MiB``."""
    value, unit = float(size), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_UNITS[0]}" if unit == 0 else f"{value:.2f} {_UNITS[unit]}"


def _facts(plan: Plan, *, gpu: bool, assumed: bool) -> list[str]:
    world = Topology(plan.mode, plan.num_workers, max(1, plan.num_servers))
    serves, trains = world.server_ranks, world.worker_ranks
    if plan.mode == "sequential":
        ranks = "1 process"
    elif plan.mode == "synchronous":
        ranks = f"{plan.world_size}; all of them train"
    else:
        first, last = trains[0], trains[-1]
        workers = f"rank {first} trains" if first == last else f"ranks {first} to {last} train"
        servers = "rank 0 serves" if len(serves) == 1 else f"ranks 0 to {serves[-1]} serve"
        ranks = f"{plan.world_size}; {servers}, {workers}"
    if assumed:
        ranks += " (assumed: set another number with -n N)"
    statistics = f", and {plan.num_stats:,} BatchNorm statistics" if plan.num_stats else ""
    merged = " of all workers together" if plan.mode == "synchronous" else ""
    return [
        f"ranks:      {ranks}",
        f"device:     {'GPU' if gpu else 'CPU'} (of a machine like this one)",
        f"parameters: {plan.num_params:,} trainable{statistics}",
        f"tickets:    {plan.tickets_per_epoch:,} an epoch{merged}, "
        f"{counted(plan.num_samples, 'sample', ',')}",
        f"updates:    {plan.tickets:,}",
        *([_messages(plan)] if plan.mode == "asynchronous" else []),
        *_service(plan),
    ]


def _warnings(job: Job, plan: Plan) -> list[str]:
    idle = idle_workers(job, plan.num_workers, plan.tickets, plan.num_samples)
    return ["", f"warning: {idle}"] if idle else []


def _service(plan: Plan) -> list[str]:
    """Say how long a step should be, where pushes are so long that a server may be what limits."""
    if plan.mode != "asynchronous" or plan.push_bytes < _LONG_PUSH:
        return []
    link_s = max(plan.push_bytes, plan.reply_bytes) / _LINK_BYTES_PER_S
    step_s = (plan.num_workers - 1) * link_s
    return [
        f"            {link_s:.2g} s each where the link has 10 Gbit/s, and then",
        f"            {plan.num_workers} workers are of use with steps of {step_s:.2g} s or more "
        "(useful workers = 1 + step / service);",
        "            with shorter ones more servers on other hosts help (servers)",
    ]


def _messages(plan: Plan) -> str:
    push, reply = amount(plan.push_bytes), amount(plan.reply_bytes)
    wire = plan.wire
    each = "" if plan.num_servers == 1 else ", from and to each server"
    return f"messages:   {push} a push ({wire.push}), {reply} a reply ({wire.reply}){each}"


def _memory(need: Need) -> list[str]:
    return [
        f"  {need.who}: {amount(need.total_bytes)}",
        *(f"    {amount(size):>11}  {what}" for what, size in need.items),
    ]
