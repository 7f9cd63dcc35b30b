"""Settings that differ from one centre, or one submission, to the next."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.tools.slurm.directives import sets

Launcher = Literal["auto", "mpirun", "srun"]

LEAD_S = 120
MAX_REQUEUES = 10
_EARLY_S = 60


@dataclass(frozen=True, kw_only=True)
class Site:
    """Resources that are asked of SLURM, and the way a script finds its software there.

    Attributes:
        nodes: None leaves it to SLURM, which then needs ``tasks``.
        tasks_per_node: Ranks on each node.
        tasks: Ranks in all, where ``tasks_per_node`` is None.
        cpus_per_task: Cores of each rank, the server's included.
        gpus_per_node: None asks for none.
        time: Time limit, in the notation of ``--time``.
        partition: None for the site's default; likewise ``account`` and ``qos``.
        account: Who pays.
        qos: Quality of service.
        array_limit: Elements of an array that run at once; None for no limit.
        extra: Further options of sbatch, a line each: ``--constraint=gpu``.
        env: A name in slurm/env, or a file; what a script sources unless told otherwise.
        launcher: Who starts the ranks; ``auto`` leaves it to what is there.
        signal_lead_s: Seconds before the time limit at which a run is asked to save and stop.
        max_requeues: Number of times that a job may be requeued.
    """

    nodes: int | None = None
    tasks_per_node: int | None = None
    tasks: int | None = None
    cpus_per_task: int = 1
    gpus_per_node: int | None = None
    time: str = "01:00:00"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    array_limit: int | None = None
    extra: tuple[str, ...] = ()
    env: str = "generic"
    launcher: Launcher = "auto"
    signal_lead_s: int = LEAD_S
    max_requeues: int = MAX_REQUEUES

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ConfigError("site", problems)

    @property
    def total_tasks(self) -> int | None:
        """Ranks that the allocation has room for; None if only SLURM will know."""
        if self.tasks_per_node is None:
            return self.tasks
        return None if self.nodes is None else self.nodes * self.tasks_per_node

    def _problems(self) -> list[str]:
        found = []
        seconds = time_s(self.time)
        if seconds is None:
            found.append(
                f"time: got {self.time!r}; allowed: as sbatch has it: minutes, HH:MM:SS, D-HH:MM:SS"
            )
        elif seconds <= self.signal_lead_s + _EARLY_S:
            found.append(
                f"time: got {self.time}; allowed: more than {self.signal_lead_s + _EARLY_S} s, for "
                f"SLURM's signal comes up to {_EARLY_S} s before the {self.signal_lead_s} s that a "
                "run is given to save itself (--signal-lead)"
            )
        for name in ("partition", "account", "qos"):
            value = getattr(self, name)
            if value is not None and not re.fullmatch(r"[^\s'\"$`\\]+", value):
                found.append(f"{name}: got {value!r}; allowed: one word without quotes")
        found += [
            f"extra: got {line!r}; allowed: options of sbatch, e.g. --constraint=gpu"
            for line in self.extra
            if not re.fullmatch(r"-[^\n]+", line)
        ]
        if sets(self.extra, "-a", "--array"):
            found.append(
                "extra: --array: the array follows from the runs of a study; allowed: "
                "--array-limit N for so many at a time, --only NAME for some of them"
            )
        return found


def time_s(text: str) -> int | None:
    """Seconds of a time as sbatch takes it, or None if it is none."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not found:
        return None
    days = int(found[1] or 0)
    first, *rest = (int(part) for part in found.groups()[1:] if part is not None)
    if found[1] is not None or len(rest) == 2:
        hours, minutes, seconds = (first, *rest, 0, 0)[:3]
    else:
        hours, minutes, seconds = 0, first, rest[0] if rest else 0
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
