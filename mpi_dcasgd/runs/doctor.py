"""Check what a run needs from its surroundings."""

from __future__ import annotations

from pathlib import Path

from mpi_dcasgd.learning.settings import Count
from mpi_dcasgd.record.run_files import RUNS
from mpi_dcasgd.runs.arguments import check_arguments
from mpi_dcasgd.tools.doctor.checks import look
from mpi_dcasgd.tools.doctor.finding import Finding, unseen
from mpi_dcasgd.tools.doctor.surroundings import gather
from mpi_dcasgd.tools.doctor.world_check import check_world, world_name


def doctor(
    ranks: Count | None = None,
    *,
    run_dir: Path | str = RUNS,
    launcher: str | None = None,
    mpirun: str | None = None,
    mpirun_args: str = "",
) -> list[Finding]:
    """Check MPI, Horovod, PyTorch, SLURM and this machine.

    Whatever may hang or crash is looked at in a process of its own, which is ended in time. Nothing
    that is missing stops the other checks. Files that are written to try a folder are removed.

    Args:
        ranks: Start so many, and measure the messages between them; None: start none.
        run_dir: The folder of runs, which need not exist.
        launcher: ``auto``, ``mpirun`` or ``srun``.
        mpirun: The mpirun to use; None for the one of this Python, or of PATH.
        mpirun_args: More arguments for it, as one word.

    Returns:
        One finding of every check.

    Raises:
        ConfigError: An argument is wrong.

    Example:
        Commands that mend what is broken::

            [found.fix for found in doctor() if found.result == "fail"]
    """
    check_arguments(doctor, locals())
    where = gather(Path(run_dir), ranks, launcher=launcher, mpirun=mpirun)
    found = list(look(where))
    if ranks is not None and found[0].result == "fail":
        found.append(unseen(world_name(ranks), "there is no launcher that works"))
    elif ranks is not None:
        found.append(check_world(ranks, launcher=launcher, mpirun=mpirun, arguments=mpirun_args))
    return found
