"""Ranks are not started within another launcher, nor in what is left of an allocation."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mpi_dcasgd.cli import main
from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.tools.launch.surroundings import refuse_leftovers, refuse_many

ALLOCATION = {
    "SLURM_JOB_ID": "12",
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_TASKS_PER_NODE": "2(x2)",
}
STEP = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0"}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs named like SLURM's, on PATH; squeue tells of a job 12 that runs."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program(tmp_path / "squeue", "echo '12|RUNNING|None|0|'")
    program(tmp_path / "scontrol", "echo 'Invalid job id specified' >&2; exit 1")
    program(tmp_path / "sacct", "exit 1")
    return tmp_path


def program(file: Path, text: str) -> None:
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


@pytest.mark.parametrize("command", ["run", "simulate", "compare", "replay", "calibrate"])
def test_one_of_several_processes_says_that_one_is_enough(
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = {"run": ["-n", "3"]}.get(command, [])
    for name, value in OPEN_MPI.items():
        monkeypatch.setenv(name, value)
    for rank, status, lines in ((0, 2, 1), (1, 0, 0), (2, 0, 0)):
        monkeypatch.setenv("OMPI_COMM_WORLD_RANK", str(rank))
        assert main([command, "none.yaml", *words]) == status
        error = capsys.readouterr().err
        assert error.count("\n") == lines
        assert ("Open MPI's mpirun has started 3 processes here" in error) == (rank == 0)
    assert list(tmp_path.iterdir()) == []


def test_a_shell_of_srun_with_several_tasks_is_told_of_salloc() -> None:
    with pytest.raises(LaunchError, match=r"srun has started 2 processes here.*`salloc`"):
        refuse_many("run", {**ALLOCATION, **STEP, "SLURM_PROCID": "0"})
    assert refuse_many("run", {})
    assert refuse_many("run", ALLOCATION)


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        (["SLURM_JOB_NODELIST", "SLURM_JOB_NUM_NODES", "SLURM_TASKS_PER_NODE"], "are not set"),
        (["SLURM_TASKS_PER_NODE"], "SLURM_TASKS_PER_NODE is not set"),
    ],
)
def test_variables_of_half_an_allocation_are_refused(
    slurm: Path, missing: list[str], told: str
) -> None:
    env = {name: value for name, value in ALLOCATION.items() if name not in missing}
    with pytest.raises(LaunchError, match=f"SLURM_JOB_ID is 12, but .*{told}.*unset"):
        refuse_leftovers("mpirun", env=env)


def test_an_allocation_that_runs_or_that_slurm_is_silent_about_is_taken(slurm: Path) -> None:
    refuse_leftovers("mpirun", env={})
    refuse_leftovers("mpirun", env=ALLOCATION)
    old_names = {"SLURM_JOB_ID": "12", "SLURM_NODELIST": "n1", "SLURM_NNODES": "1"}
    refuse_leftovers("mpirun", env={**old_names, "SLURM_TASKS_PER_NODE": "2"})
    program(slurm / "squeue", "exit 1")
    refuse_leftovers("mpirun", env=ALLOCATION)


def test_what_is_left_of_a_job_that_is_over_is_refused(slurm: Path) -> None:
    program(slurm / "squeue", "exit 0")
    with pytest.raises(LaunchError, match="SLURM knows no such job"):
        refuse_leftovers("mpirun", env=ALLOCATION)
    program(slurm / "scontrol", "echo 'JobId=12 JobState=COMPLETED Reason=None'")
    with pytest.raises(LaunchError, match=r"that job is over \(COMPLETED\)"):
        refuse_leftovers("mpirun", env=ALLOCATION)
    program(slurm / "scontrol", "echo 'JobId=12 JobState=COMPLETING Reason=None'")
    refuse_leftovers("mpirun", env=ALLOCATION)


def test_an_element_of_an_array_is_asked_about_by_its_own_name(slurm: Path) -> None:
    env = {**ALLOCATION, "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "2"}
    line = "echo 'JobId=12 ArrayJobId=9 ArrayTaskId={} JobState={} Reason=None'"
    program(slurm / "squeue", "echo '9_2|RUNNING|None|0|'")
    program(slurm / "scontrol", line.format(1, "FAILED"))
    refuse_leftovers("mpirun", env=env)
    program(slurm / "squeue", "exit 0")
    program(slurm / "scontrol", line.format(2, "FAILED"))
    with pytest.raises(LaunchError, match="over"):
        refuse_leftovers("mpirun", env=env)


def test_ranks_are_not_started_from_within_a_step(slurm: Path) -> None:
    one = {**ALLOCATION, "SLURM_JOB_NUM_NODES": "1"}
    with pytest.raises(LaunchError, match=r"is a step of SLURM's job 12.*`salloc`"):
        refuse_leftovers("mpirun", env={**ALLOCATION, **STEP})
    with pytest.raises(LaunchError, match="is a step"):
        refuse_leftovers("srun", env={**one, **STEP})
    refuse_leftovers("srun", ["--overlap"], env={**one, **STEP})
    refuse_leftovers("mpirun", env={**one, **STEP})
    # salloc's own shell, where LaunchParameters=use_interactive_step
    refuse_leftovers("srun", env={**ALLOCATION, "SLURM_STEP_ID": "4294967290"})


def test_run_says_so_before_anything_is_started(
    slurm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (slurm / "job.yaml").write_text(
        "{algorithm: asgd, epochs: 1, batch_size: 8, lr: 0.1, model: {name: mlp, hidden: [4]},"
        " data: {name: digits}}"
    )
    program(slurm / "mpirun", "echo 'started' >&2; exit 3")
    monkeypatch.chdir(slurm)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    words = ["run", "-n", "3", "job.yaml", "--run-dir", "r", "--mpirun", "./mpirun"]
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (slurm / "r").exists()


@pytest.mark.parametrize(("rank", "slept"), [("0", []), ("1", [3.0])])
def test_an_mpi_that_does_not_load_is_one_sentence(
    rank: str,
    slept: list[float],
    slurm: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (slurm / "job.yaml").write_text(
        "{algorithm: asgd, epochs: 1, batch_size: 8, lr: 0.1, model: {name: mlp, hidden: [4]},"
        " data: {name: digits}}"
    )
    monkeypatch.chdir(slurm)
    for name, value in {**OPEN_MPI, "OMPI_COMM_WORLD_RANK": rank}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", None)
    monkeypatch.delattr("mpi4py.MPI", raising=False)  # another test may have loaded it
    waited: list[float] = []
    monkeypatch.setattr("mpi_dcasgd.cli.train.time", SimpleNamespace(sleep=waited.append))
    assert main(["train", "job.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("LaunchError: mpi4py does not load its MPI (")
    assert error.count("\n") == 1
    assert waited == slept
