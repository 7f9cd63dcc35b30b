"""Worlds started in a SLURM allocation by hand, as a user's own batch script would."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from local_slurm import LocalSlurm

from mpi_dcasgd.tools.launch import world as launch

pytestmark = [pytest.mark.slurm, pytest.mark.mpi, pytest.mark.timeout(180)]

JOB = Path(__file__).parents[2] / "jobs" / "digits.yaml"
TRAIN = f"{sys.executable} -m mpi_dcasgd train {JOB} epochs=2"
RUN = f"{sys.executable} -m mpi_dcasgd run {JOB} epochs=2"
TWO_BY_TWO = ("--nodes=2", "--ntasks-per-node=2")
# Through MPI, which lets no rank end before all have begun: Open MPI 5.0.11's mpirun does not
# notice, in one of 30 starts on several hosts, that ranks are over which end within milliseconds.
RANK = """
import os
from mpi4py import MPI
comm = MPI.COMM_WORLD
print(f"rank {comm.rank} of {comm.size} on {os.environ['SLURMD_NODENAME']}")
"""


def script(*lines: str) -> str:
    return "\n".join(
        [
            "#!/bin/bash",
            "set -eu",
            "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1",
            *lines,
            "",
        ]
    )


def mpirun() -> str:
    return launch.plan(1, []).argv[0]


def read(folder: Path, name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / name).read_text())
    return result


def test_mpirun_spreads_the_ranks_and_both_ways_of_starting_train(
    slurm: LocalSlurm, tmp_path: Path
) -> None:
    # One job for all: an allocation is cheap, starting PyTorch on four ranks is not.
    by_run, by_hand = tmp_path / "run", tmp_path / "hand"
    job = slurm.submit(
        script(
            f"{mpirun()} --bind-to none {sys.executable} -c {shlex.quote(RANK)}",
            f"{RUN} -n 4 algorithm=asgd --run-dir {by_run}",
            f"{mpirun()} --bind-to none {TRAIN} algorithm=dcasgd-a --run-dir {by_hand}",
        ),
        *TWO_BY_TWO,
    )
    slurm.wait(job, "COMPLETED", timeout=150)
    lines = sorted(re.findall(r"rank (\d) of (\d) on (\w+)", slurm.log(job)))
    assert [(rank, size) for rank, size, node in lines] == [(str(rank), "4") for rank in range(4)]
    assert sorted(node for rank, size, node in lines) == ["n1", "n1", "n2", "n2"]
    for folder, algorithm in ((by_run, "asgd"), (by_hand, "dcasgd-a")):
        summary = read(folder, "summary.json")
        assert summary["status"] == "completed"
        assert summary["algorithm"] == algorithm
        assert summary["samples"] == 2 * 1437
        ranks = read(folder, "environment.json")["ranks"]
        assert [rank["role"] for rank in ranks] == ["server", *3 * ["worker"]]


def test_run_within_srun_is_refused_at_once(slurm: LocalSlurm, tmp_path: Path) -> None:
    run = f"{RUN} -n 2 algorithm=asgd --run-dir {tmp_path}/run"
    job = slurm.submit(
        script(
            f"srun -N2 -n2 {run} || echo status $?",
            f"srun -N1 -n1 {run} || echo status $?",
            f"SLURM_JOB_ID=987654 {run} || echo status $?",
            f"env -u SLURM_TASKS_PER_NODE {run} || echo status $?",
        ),
        *TWO_BY_TWO,
    )
    slurm.wait(job, "COMPLETED", timeout=100)
    log = slurm.log(job)
    assert log.count("LaunchError: ") == 4, log
    assert log.count("status 2\n") == 4
    assert "srun has started 2 processes here" in log
    assert "is a step of SLURM's job" in log
    assert "SLURM knows no such job" in log
    assert "SLURM_TASKS_PER_NODE is not set" in log
    assert not (tmp_path / "run").exists()


def test_srun_with_the_wrong_protocol_is_refused_with_the_remedy(
    slurm: LocalSlurm, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    job = slurm.submit(
        script(f"srun --mpi=pmi2 {TRAIN} algorithm=asgd --run-dir {run}"), *TWO_BY_TWO
    )
    known = slurm.wait(job, "FAILED", timeout=120)
    assert known["ExitCode"] == "2:0"
    log = slurm.log(job)
    assert "srun started 4 processes" in log, log
    assert "--mpi=pmix" in log
    assert "Traceback" not in log
    assert not run.exists()


def test_srun_with_pmix_starts_one_world(slurm: LocalSlurm, pmix: None, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ranks = (
        "from mpi4py import MPI; from mpi_dcasgd.drivers.world import host_ranks; "
        "comm = MPI.COMM_WORLD; found = comm.gather(host_ranks(comm)); "
        "comm.rank == 0 and print(found)"
    )
    job = slurm.submit(
        script(
            f"srun --mpi=pmix {sys.executable} -c '{ranks}'",
            f"srun --mpi=pmix {TRAIN} algorithm=dcasgd-a --run-dir {run}",
        ),
        *TWO_BY_TWO,
    )
    slurm.wait(job, "COMPLETED", timeout=120)
    # The two nodes are one machine, and one machine's GPUs would be dealt out to all four.
    assert "[(0, 4), (1, 4), (2, 4), (3, 4)]" in slurm.log(job)
    summary = read(run, "summary.json")
    assert summary["status"] == "completed"
    assert summary["world_size"] == 4
    assert summary["samples"] == 2 * 1437
