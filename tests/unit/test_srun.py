"""Who starts the ranks, and what srun is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpi_dcasgd.cli import main
from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.tools.launch import mpirun as mpirun_tool
from mpi_dcasgd.tools.launch import world as launch
from mpi_dcasgd.tools.launch.srun import allocated_tasks, pick_launcher, srun_command


def executable(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def no_mpirun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for PATH; this Python's environment has no mpirun."""
    monkeypatch.setattr(mpirun_tool.sys, "executable", str(tmp_path / "env" / "python"))
    for name in ("MPI_DCASGD_LAUNCHER", "MPI_DCASGD_SRUN_ARGS", "MPIRUN", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "bin"


def test_in_an_allocation_mpirun_comes_first_and_srun_where_there_is_none(no_mpirun: Path) -> None:
    executable(no_mpirun / "srun")
    inside = {"PATH": str(no_mpirun), "SLURM_JOB_ID": "1"}
    assert pick_launcher(env=inside) == "srun"
    assert pick_launcher(mpirun="/site/mpirun", env=inside) == "mpirun"
    assert pick_launcher(env={"PATH": str(no_mpirun)}) == "mpirun"
    executable(no_mpirun / "mpirun")
    assert pick_launcher(env=inside) == "mpirun"


def test_the_launcher_is_the_option_then_the_variable() -> None:
    inside = {"SLURM_JOB_ID": "1", "MPI_DCASGD_LAUNCHER": "srun"}
    assert pick_launcher(env=inside) == "srun"
    assert pick_launcher("mpirun", env=inside) == "mpirun"
    with pytest.raises(LaunchError, match="allowed: auto, mpirun, srun"):
        pick_launcher(env={"MPI_DCASGD_LAUNCHER": "ibrun"})


def test_srun_is_refused_outside_of_an_allocation() -> None:
    with pytest.raises(LaunchError, match="no SLURM allocation here"):
        pick_launcher("srun", env={})


def test_srun_gets_the_cores_of_a_task_and_the_sites_words(tmp_path: Path) -> None:
    srun = executable(tmp_path / "srun")
    env = {
        "PATH": str(tmp_path),
        "SLURM_JOB_ID": "1",
        "SLURM_NTASKS": "4",
        "SLURM_CPUS_PER_TASK": "8",
        "MPI_DCASGD_SRUN_ARGS": "--mpi=pmix --cpu-bind=cores",
    }
    command = srun_command(3, ["train"], extra=["-u"], env=env)
    words = "-n 3 --kill-on-bad-exit=1 --cpus-per-task=8 --mpi=pmix --cpu-bind=cores -u train"
    assert command.argv == (str(srun), *words.split())
    with pytest.raises(LaunchError, match="the allocation has 4 tasks"):
        srun_command(5, ["train"], env=env)
    with pytest.raises(LaunchError, match="found no srun"):
        srun_command(1, ["train"], env={"PATH": ""})


@pytest.mark.parametrize(
    ("env", "tasks"),
    [
        ({}, None),
        ({"SLURM_NTASKS": "9"}, None),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "5", "SLURM_TASKS_PER_NODE": "3,2"}, 5),
        ({"SLURM_JOB_ID": "1", "SLURM_TASKS_PER_NODE": "2(x3),1"}, 7),
        ({"SLURM_JOB_ID": "1"}, None),
    ],
)
def test_an_allocation_tells_its_tasks(env: dict[str, str], tasks: int | None) -> None:
    assert allocated_tasks(env) == tasks


def test_ranks_are_the_allocations_tasks_unless_said_otherwise(
    no_mpirun: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    executable(no_mpirun / "srun")
    variables = {"PATH": str(no_mpirun), "SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    words = ["run", "jobs/digits.yaml", "--dry-run"]
    assert main(words) == 0
    assert "srun -n 4 " in capsys.readouterr().out
    assert main([*words, "-n", "3"]) == 0
    assert "srun -n 3 " in capsys.readouterr().out
    assert main([*words, "algorithm=sgd"]) == 0
    assert "srun" not in capsys.readouterr().out


def test_srun_has_no_fault_tolerance(no_mpirun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with pytest.raises(LaunchError, match="--fault-tolerant"):
        launch.plan(2, ["train"], launcher="srun", fault_tolerant=True)


def test_a_sites_words_for_mpirun_come_before_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mpirun = executable(tmp_path / "mpirun", "echo 'mpirun (Open MPI) 5.0.11'")
    monkeypatch.setenv("MPI_DCASGD_MPIRUN_ARGS", "--mca pml ob1")
    command = launch.plan(1, ["train"], launcher="mpirun", mpirun=str(mpirun), extra=["-v"])
    assert command.argv[-5:] == ("--mca", "pml", "ob1", "-v", "train")
