"""The table of checks, in the order in which they are shown: the launcher's first."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mpi_dcasgd.tools.doctor import (
    folder_checks,
    learning_checks,
    machine_checks,
    mpi_checks,
)
from mpi_dcasgd.tools.doctor.finding import Finding
from mpi_dcasgd.tools.doctor.surroundings import Surroundings

CHECKS: tuple[Callable[[Surroundings], Finding], ...] = (
    mpi_checks.check_launcher,
    mpi_checks.check_mpi4py,
    mpi_checks.check_single,
    mpi_checks.check_threads_of_mpi,
    mpi_checks.check_fault_tolerance,
    mpi_checks.check_gpu_memory_in_mpi,
    learning_checks.check_horovod,
    learning_checks.check_mpi_of_horovod,
    learning_checks.check_torch,
    learning_checks.check_gpus,
    learning_checks.check_torchvision,
    machine_checks.check_slurm,
    machine_checks.check_cores,
    machine_checks.check_threads,
    machine_checks.check_binding,
    machine_checks.check_shared_memory,
    folder_checks.check_temporary,
    machine_checks.check_open_files,
    folder_checks.check_run_folder,
    folder_checks.check_locks,
)


def look(where: Surroundings) -> Iterator[Finding]:
    """Yield the finding of every check."""
    for check in CHECKS:
        yield check(where)
