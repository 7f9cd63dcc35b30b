"""A world that is to be started: the job, the ranks, the launcher, and the command of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mpi_dcasgd.config.plan import check_ranks
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.tools.launch import world
from mpi_dcasgd.tools.launch.hosts import Without
from mpi_dcasgd.tools.launch.mpirun import MpirunCommand


@dataclass(frozen=True)
class Launcher:
    """Choice of the launcher and its options.

    Attributes:
        name: ``auto``, ``mpirun`` or ``srun``; None for the variable MPI_DCASGD_LAUNCHER.
        mpirun: Path of the mpirun to use; None for this Python's.
        arguments: Further arguments for it.
        fault_tolerant: Let the run outlive the death of a worker.
    """

    name: str | None = None
    mpirun: str | None = None
    arguments: tuple[str, ...] = ()
    fault_tolerant: bool = False


@dataclass(frozen=True)
class LaunchPlan:
    """A world that is to be started.

    Attributes:
        job: The checked job.
        file: Its file, which the ranks read.
        ranks: Processes.
        words: Changes of the job.
        options: What the ranks are told beside the file, the words and ``--run-dir``.
        run_dir: The run folder that was asked for.
        launcher: Who starts them.
    """

    job: Job
    file: Path
    ranks: int
    words: tuple[str, ...]
    options: tuple[str, ...]
    run_dir: Path | None
    launcher: Launcher

    @property
    def sequential(self) -> bool:
        """True if the run is one process, which needs no launcher."""
        return self.job.mode == "sequential"

    @property
    def begins_anew(self) -> bool:
        """True if the ranks are told not to go on from what the run folder holds."""
        never = "never" in self.options
        return never or ("--overwrite" in self.options and "--resume" not in self.options)

    def again(self, ranks: int, *, resumes: bool) -> LaunchPlan:
        """Return the plan of another start, with the ranks that are left.

        Args:
            ranks: How many.
            resumes: There is a checkpoint of this run to resume from, which the options may rule
                out.

        Raises:
            LaunchError: The algorithm cannot run on so few.
        """
        if ranks != self.ranks:
            check_ranks(self.job, ranks)
        return replace(self, ranks=ranks, options=() if resumes else self.options)

    def command(self, run_dir: Path | None = None, without: Without | None = None) -> MpirunCommand:
        """The command that starts the world.

        Args:
            run_dir: The run folder, if not the one that was asked for.
            without: Hosts that are left out.

        Raises:
            LaunchError: There is no launcher, or no host.
        """
        where = run_dir or self.run_dir
        options = [*self.options, *(["--run-dir", str(where)] if where else [])]
        program = world.rank_program(str(self.file), [*self.words, *options])
        if self.sequential:
            return MpirunCommand(tuple(program))
        launcher = self.launcher
        return world.plan(
            self.ranks,
            program,
            launcher=launcher.name,
            mpirun=launcher.mpirun,
            fault_tolerant=launcher.fault_tolerant,
            extra=list(launcher.arguments),
            without=without,
        )
