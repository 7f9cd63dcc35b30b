"""The world as the launcher's environment variables tell it."""

from __future__ import annotations

import socket

import pytest
import torch

from mpi_dcasgd.drivers.world import Launch, check_world, pick_device
from mpi_dcasgd.errors import LaunchError

OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
MPICH = {"PMI_SIZE": "4", "PMI_RANK": "3", "MPI_LOCALRANKID": "1"}
SRUN = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}
SRUN_PMI2 = SRUN | {"PMI_SIZE": "4", "PMI_RANK": "3"}
CRAY = {"PMI_SIZE": "4", "PMI_RANK": "3", "PMI_LOCAL_RANK": "1"}
# What a batch script's own shell has: an allocation of 8 tasks in which nothing was started yet.
BATCH_SHELL = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    ("env", "launcher"),
    [
        (OPEN_MPI, "Open MPI's mpirun"),
        (MPICH, "MPICH's mpiexec"),
        (SRUN, "srun"),
        (SRUN_PMI2, "srun"),
        (CRAY, "Cray's mpiexec"),
    ],
)
def test_each_launcher_is_recognised(env: dict[str, str], launcher: str) -> None:
    launch = Launch.of(env)
    assert (launch.launcher, launch.size, launch.rank, launch.local_rank) == (launcher, 4, 3, 1)


@pytest.mark.parametrize("env", [{}, BATCH_SHELL, {"OMPI_COMM_WORLD_SIZE": "four"}])
def test_a_process_on_its_own_is_a_world_of_one(env: dict[str, str]) -> None:
    launch = Launch.of(env)
    assert (launch.launcher, launch.size, launch.rank, launch.local_rank) == (None, 1, 0, 0)


def test_mpirun_in_an_allocation_is_not_taken_for_its_daemons_srun() -> None:
    daemons = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}
    launch = Launch.of(daemons | OPEN_MPI)
    assert (launch.launcher, launch.size) == ("Open MPI's mpirun", 4)


@pytest.mark.parametrize(
    ("env", "remedy"),
    [
        (SRUN_PMI2, "srun --mpi=pmix"),
        (SRUN, "srun --mpi=pmix"),
        (MPICH, "mpi-dcasgd run"),
        (OPEN_MPI, "--mpirun PATH"),
    ],
)
def test_processes_that_are_each_alone_are_refused_with_a_remedy(
    env: dict[str, str], remedy: str
) -> None:
    with pytest.raises(LaunchError) as caught:
        check_world(1, env, library="Open MPI v5.0.11, package: x\x00")
    message = str(caught.value)
    assert "started 4 processes" in message
    assert "Open MPI v5.0.11" in message
    assert remedy in message


@pytest.mark.parametrize(
    ("size", "env"),
    [
        (1, {}),
        (1, BATCH_SHELL),
        (1, SRUN | {"SLURM_STEP_NUM_TASKS": "1"}),
        (4, OPEN_MPI),
        # Daemons are counted, not ranks: an inequality that is no mistake.
        (8, {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}),
    ],
)
def test_worlds_that_are_as_meant_pass(size: int, env: dict[str, str]) -> None:
    check_world(size, env)


def test_ranks_take_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    picked = [pick_device("auto", rank) for rank in range(4)]
    assert picked == [torch.device("cuda", index) for index in (0, 1, 0, 1)]
    assert pick_device("cuda", 3) == torch.device("cuda", 1)
    assert pick_device("cpu", 3) == torch.device("cpu")


def test_without_a_gpu_auto_is_the_cpu_and_cuda_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto", 0) == torch.device("cpu")
    with pytest.raises(LaunchError, match="sees no GPU") as caught:
        pick_device("cuda", 2)
    assert socket.gethostname() in str(caught.value)
    assert "auto" in str(caught.value)


def test_a_build_without_cuda_is_told_from_hidden_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(LaunchError, match="built without CUDA"):
        pick_device("cuda", 0)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(LaunchError, match="CUDA_VISIBLE_DEVICES is ''"):
        pick_device("cuda", 0)
