"""Request of a submission to SLURM, and the allocation that it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.tools.slurm.site import Launcher, Site


@dataclass(frozen=True, kw_only=True)
class SlurmRequest:
    """Resources, site and limits of a submission; None leaves a setting to its default.

    Attributes:
        ranks: Processes in all, the server included; of a study, by default those of its largest
            run.
        nodes: Nodes; by default SLURM chooses.
        tasks_per_node: Ranks on each node.
        cpus_per_task: Cores of each rank, and its PyTorch threads unless the job sets ``threads``.
        gpus_per_node: GPUs of each node; by default none.
        time: Time limit in sbatch's notation, ``HH:MM:SS`` for one.
        partition: sbatch's ``--partition``.
        account: sbatch's ``--account``.
        qos: sbatch's ``--qos``.
        sbatch: Further options of sbatch, ``--constraint=gpu`` for one.
        site_env: File that the script sources first, or the name of one; by default the variable
            SITE.
        launcher: ``auto``, ``mpirun`` or ``srun``; by default the site file's choice.
        array_limit: Runs of a study at a time; by default all.
        signal_lead_s: Seconds before the time limit at which a run saves itself and stops.
        max_requeues: Number of times that a job may be requeued.

    Example:
        >>> SlurmRequest(nodes=2, tasks_per_node=4, partition="gpu").site(None).total_tasks
        8
    """

    ranks: int | None = None
    nodes: int | None = None
    tasks_per_node: int | None = None
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    sbatch: tuple[str, ...] = ()
    site_env: str | None = None
    launcher: Launcher | None = None
    array_limit: int | None = None
    signal_lead_s: int | None = None
    max_requeues: int | None = None

    def site(self, ranks: int | None, env: str | None = None) -> Site:
        """Return the allocation.

        Args:
            ranks: Ranks that are needed, if that is known.
            env: File that the script sources first.

        Raises:
            ConfigError: A setting is not sbatch's.
            LaunchError: It does not follow how many ranks there are to be.
        """
        size = self._size(ranks)
        settings: dict[str, Any] = {
            "cpus_per_task": self.cpus_per_task,
            "time": self.time,
            "env": env,
            "launcher": self.launcher,
            "signal_lead_s": self.signal_lead_s,
            "max_requeues": self.max_requeues,
        }
        return Site(
            nodes=size.nodes,
            tasks_per_node=size.tasks_per_node,
            tasks=size.tasks,
            gpus_per_node=self.gpus_per_node,
            partition=self.partition,
            account=self.account,
            qos=self.qos,
            array_limit=self.array_limit,
            extra=self.sbatch,
            **{name: value for name, value in settings.items() if value is not None},
        )

    def _size(self, ranks: int | None) -> _Size:
        nodes, each, tasks = self.nodes, self.tasks_per_node, self.ranks
        if tasks is not None:
            if each is not None:
                raise LaunchError("--ranks and --tasks-per-node: give one of them")
            return _Size(nodes, None, tasks)
        if each is None and nodes is not None:
            each = -(-ranks // nodes) if ranks else self.gpus_per_node
            if each is None:
                raise LaunchError(
                    f"--nodes {nodes}: set the number of ranks, too, with --tasks-per-node"
                )
        if each is not None:
            return _Size(nodes or (-(-ranks // each) if ranks else 1), each, None)
        if ranks is None:
            raise LaunchError(
                "set the number of ranks: --ranks N, or --nodes and --tasks-per-node; in an "
                "asynchronous run one of them is the server"
            )
        return _Size(None, None, ranks)


class _Size(NamedTuple):
    nodes: int | None
    tasks_per_node: int | None
    tasks: int | None
