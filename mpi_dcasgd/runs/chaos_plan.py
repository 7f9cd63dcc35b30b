"""Runs that faults are to strike: what is asked for, checked before anything is started."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mpi_dcasgd.config.plan import plan_job
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.topology import Topology
from mpi_dcasgd.errors import ConfigError, LaunchError
from mpi_dcasgd.runs.jobs import load_job
from mpi_dcasgd.runs.launch import plan_launch
from mpi_dcasgd.runs.launch_plan import Launcher
from mpi_dcasgd.shipped import shipped
from mpi_dcasgd.tools.chaos.hosts import lacking
from mpi_dcasgd.tools.chaos.plan import ELSEWHERE, KINDS, Plan, draw, pick_kinds

_SMALL = ("epochs=6", "model.hidden=[64]", "inject={delays: {model: constant, mean_s: 0.02}}")
"""What makes of the example job one that trains for some seconds."""

_FITTING: tuple[tuple[str, object, str], ...] = (
    ("faults.patience", "auto", "faults.patience=3"),
    ("faults.setup_patience", "auto", "faults.setup_patience=30"),
    ("checkpoint.every", None, "checkpoint.every=1"),
    ("record.trace_flush_s", 1.0, "record.trace_flush_s=0.02"),
)
"""Settings that faults can be seen by in a short run, for jobs that leave them as they are."""


@dataclass(frozen=True)
class Chaos:
    """Runs that faults are to strike.

    Attributes:
        file: The job's file.
        words: Changes of the job, those that make it fit for a short run among them.
        asked: Job, changes and kinds as they were asked for, on a command line.
        world: Ranks of each run.
        runs: Number of runs.
        seed: Decides which faults strike, whom and when.
        kinds: Kinds of faults.
        modes: Whether to start with ``--fault-tolerant``, in turn.
        limit_s: Seconds within which a start has to end after its last fault.
        patience_s: Patience of the job with ranks that hang.
        total: Tickets of a run.
        left_out: Kinds that cannot be tried here, and why, a line each.
    """

    file: Path
    words: tuple[str, ...]
    asked: tuple[str, ...]
    world: Topology
    runs: int
    seed: int
    kinds: tuple[str, ...]
    modes: tuple[bool, ...]
    limit_s: float
    patience_s: float
    total: int
    left_out: tuple[str, ...] = ()

    def plan(self, run: int) -> Plan:
        """Return what happens to one of the runs."""
        workers, world = self.world.num_workers, self.world
        return draw(self.seed, run, self.kinds, workers, modes=self.modes, world=world)

    def command(self, run: int) -> str:
        """The command that repeats one of the runs."""
        words = ["mpi-dcasgd", "chaos", *self.asked, "-n", str(self.world.num_workers)]
        words += ["--seed", str(self.seed)]
        words += {(True,): ["--fault-tolerant"], (False, True): ["--both"]}.get(self.modes, [])
        return shlex.join([*words, "--only", str(run)])

    def argv(self, folder: Path, *, fault_tolerant: bool) -> list[str]:
        """The command that starts one of the runs in a folder, or resumes it there."""
        argv = [sys.executable, "-m", "mpi_dcasgd", "run", "-n", str(self.world.world_size)]
        argv += [str(self.file), *self.words, "--run-dir", str(folder)]
        return [*argv, "--fault-tolerant"] if fault_tolerant else argv


def prepare(
    file: Path | str | None = None,
    *,
    words: Sequence[str] = (),
    runs: int = 200,
    seed: int = 0,
    workers: int = 4,
    kinds: Sequence[str] = tuple(KINDS),
    modes: Sequence[bool] = (False,),
    limit_s: float = 120.0,
) -> Chaos:
    """Check what is asked for; nothing is started.

    Args:
        file: The job's file; None for the example of the digits, made short.
        words: Changes of the job, ``key=value``.
        runs: Number of runs.
        seed: Decides which faults strike, whom and when.
        workers: Workers of each run.
        kinds: Kinds of faults, by name or by the word that a name begins with.
        modes: Whether to start with ``--fault-tolerant``, in turn.
        limit_s: Seconds within which a start has to end after its last fault.

    Raises:
        ConfigError: The job is wrong, is sequential, keeps no trace, or a kind is unknown.
        LaunchError: There is no launcher, or none that is fault-tolerant where that is asked for.

    Example:
        >>> chaos = prepare(runs=2, kinds=["kill"])
        >>> chaos.kinds, str(chaos.plan(1))
        (('kill-worker', 'kill-server', 'kill-mpirun'), 'kill-mpirun at 3 % of the tickets')
    """
    chosen, given = pick_kinds(kinds), tuple(words)
    asked = (*([] if file is None else [str(file)]), *given)
    if tuple(kinds) != tuple(KINDS):
        asked += ("--kinds", ",".join(kinds))
    if file is None:
        file, given = shipped("jobs/digits.yaml"), (*_SMALL, *given)
    file = Path(file)
    job = load_job(file, words=given)
    _refuse(job, file)
    fitting = [word for key, default, word in _FITTING if _setting(job, key) == default]
    words = (*fitting, *given)
    job = load_job(file, words=words)
    world = job.world(workers)
    ranks = world.world_size
    for fault_tolerant in modes:
        launcher = Launcher(fault_tolerant=fault_tolerant)
        plan_launch(file, ranks, words=words, launcher=launcher).command(Path("run"))
    left_out = []
    if ELSEWHERE in chosen and (reason := lacking()):
        chosen = tuple(kind for kind in chosen if kind != ELSEWHERE)
        left_out.append(f"{ELSEWHERE}: {reason}")
        if not chosen:
            raise LaunchError(f"no kind of fault can be tried here: {left_out[0]}")
    return Chaos(
        file=file,
        words=words,
        asked=asked,
        world=world,
        runs=runs,
        seed=seed,
        kinds=chosen,
        modes=tuple(modes),
        limit_s=limit_s,
        patience_s=float(job.faults.patience) if isinstance(job.faults.patience, float) else 60.0,
        total=plan_job(job, ranks).tickets,
        left_out=tuple(left_out),
    )


def _refuse(job: Job, file: Path) -> None:
    """Refuse a job of which nothing can be checked."""
    problems = []
    if job.mode == "sequential":
        problems.append(
            f"algorithm: {job.algorithm} is one process, which `mpi-dcasgd run` does not start; "
            "choose an asynchronous or a synchronous one"
        )
    if not job.record.trace:
        problems.append("record.trace: got false, so that nothing could be checked; omit it")
    if problems:
        raise ConfigError(f"chaos {file}", problems)


def _setting(job: Job, key: str) -> object:
    value: object = job
    for name in key.split("."):
        value = getattr(value, name)
    return value
