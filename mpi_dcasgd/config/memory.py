"""Whether the vectors of a job fit into memory, before anything is allocated."""

from __future__ import annotations

from pathlib import Path

from mpi_dcasgd.config.plan import Need, Plan
from mpi_dcasgd.errors import ConfigError

GIB = 1 << 30


def available_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Memory that programs can still have on this host, or None where that cannot be told."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def check_memory(plan: Plan, available: int | None, where: str) -> None:
    """Refuse a job whose server (or whose only process) does not fit into this host's memory.

    Args:
        plan: Of the job.
        available: Bytes, or None to check nothing.
        where: The job, in the message.

    Raises:
        ConfigError: With what each thing takes.
    """
    need = plan.needs[0]
    if available is None or need.total_bytes <= available:
        return
    items = "; ".join(f"{size / GIB:.1f} GiB for {what}" for what, size in need.items)
    raise ConfigError(
        where,
        [
            f"{need.who}: needs {need.total_bytes / GIB:.1f} GiB ({items}), but this host has "
            f"{available / GIB:.1f} GiB available; {_remedy(plan, need)}"
        ],
    )


def _remedy(plan: Plan, need: Need) -> str:
    if plan.mode == "asynchronous":
        return (
            "take fewer workers, a rule that keeps less (docs/algorithms.md says how many vectors "
            "each keeps), or a host with more memory for rank 0"
        )
    return "take a host with more memory"
