"""``mpi-dcasgd submit`` and ``status`` against a real SLURM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from local_slurm import LocalSlurm

from mpi_dcasgd.record.slurm_folder import SlurmFolder
from mpi_dcasgd.tools.slurm.states import Answer, job_states, max_array_size

pytestmark = [pytest.mark.slurm, pytest.mark.mpi, pytest.mark.timeout(300)]

REPOSITORY = Path(__file__).parents[2]
STUDY = """\
job: {job}
algorithms: [asgd, dcasgd-c]
workers: [1, 2]
seeds: [0]
set: {{epochs: 2, schedule.milestones: [1]}}
"""


def command(slurm: LocalSlurm, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mpi_dcasgd", *map(str, words)],
        cwd=REPOSITORY,
        env={name: value for name, value in slurm.env.items() if name != "SITE"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def status(slurm: LocalSlurm, folder: Path) -> dict[str, dict[str, Any]]:
    done = command(slurm, "status", "--json", folder)
    assert done.returncode == 0, done.stderr
    return {run["name"]: run for runs in json.loads(done.stdout).values() for run in runs}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    file = tmp_path / "grid.yaml"
    job = os.path.relpath(REPOSITORY / "jobs" / "digits.yaml", tmp_path)
    file.write_text(STUDY.format(job=job))
    return file


def test_a_study_ends_in_its_report_and_what_is_finished_is_not_run_again(
    slurm: LocalSlurm, study: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = command(slurm, "submit", study, "-o", out, "--array-limit", "2")
    assert done.returncode == 0, done.stderr
    submission = SlurmFolder(out).submissions()[-1]
    assert f"submitted job {submission.job_id} (4 runs in an array of 4" in done.stdout
    assert {run["state"] for run in status(slurm, out).values()} <= {"pending", "running"}
    again = command(slurm, "submit", study, "-o", out)
    assert "in the queue already" in again.stderr
    assert submission.report_id
    slurm.wait(submission.report_id, "COMPLETED", timeout=200)
    assert {run["state"] for run in status(slurm, out).values()} == {"done"}
    text = (out / "report" / "report.md").read_text()
    assert "asgd" in text
    assert "dcasgd-c" in text
    left = command(slurm, "submit", study, "-o", out)
    assert "no run is left to submit" in left.stdout
    assert len(list((out / "slurm").glob("submit-*.sbatch"))) == 1


def test_a_cancelled_run_of_a_study_is_submitted_again_alone(
    slurm: LocalSlurm, tmp_path: Path
) -> None:
    study, out = tmp_path / "small.yaml", tmp_path / "out"
    job = REPOSITORY / "jobs" / "digits.yaml"
    study.write_text(
        f"job: {job}\nalgorithms: [ssgd, asgd]\nworkers: [2]\nseeds: [0]\nset: {{epochs: 2}}\n"
    )
    done = command(slurm, "submit", study, "-o", out)
    assert done.returncode == 0, done.stderr
    first = SlurmFolder(out).submissions()[-1]
    assert first.report_id
    slurm.wait(f"{first.job_id}_0", "RUNNING")
    slurm.cancel(f"{first.job_id}_1")
    slurm.wait(first.report_id, "FAILED", timeout=150)
    assert "not finished: asgd-w2-s0" in slurm.log(first.report_id)
    assert {name: run["state"] == "done" for name, run in status(slurm, out).items()} == {
        "ssgd-w2-s0": True,
        "asgd-w2-s0": False,
    }
    done = command(slurm, "submit", study, "-o", out)
    assert "(1 run in an array of 1)" in done.stdout
    second = SlurmFolder(out).submissions()[-1]
    assert second.parts == (("asgd-w2-s0",),)
    assert second.report_id
    slurm.wait(second.report_id, "COMPLETED", timeout=150)
    assert "ssgd" in (out / "report" / "report.md").read_text()


def test_the_runs_of_a_study_wait_for_its_tuning_runs_and_take_what_they_choose(
    slurm: LocalSlurm, tmp_path: Path
) -> None:
    study, out = tmp_path / "tuned.yaml", tmp_path / "out"
    job = REPOSITORY / "jobs" / "digits.yaml"
    study.write_text(
        f"job: {job}\nalgorithms: [sgd]\nworkers: [1]\nseeds: [0]\n"
        "set: {epochs: 1, schedule: {name: constant}, data.validation: 0.1}\n"
        "tune: {grid: {lr: [0.0001, 0.1]}}\n"
    )
    done = command(slurm, "submit", study, "-o", out)
    assert done.returncode == 0, done.stderr
    tuning, runs = SlurmFolder(out / "tuning").submissions()[-1], SlurmFolder(out).submissions()[-1]
    assert f"submitted job {tuning.job_id} (2 tuning runs in an array of 2)" in done.stdout
    assert "afterany" in slurm.job(f"{runs.job_id}_0")["Dependency"]
    assert runs.report_id
    slurm.wait(runs.report_id, "COMPLETED", timeout=200)
    [chosen] = json.loads((out / "tuning.json").read_text())["chosen"]
    assert (chosen["runs"], chosen["values"]) == (2, {"lr": 0.1})
    assert "lr: 0.1\n" in (out / "jobs" / "sgd-s0.yaml").read_text()
    assert {run["state"] for run in status(slurm, out).values()} == {"done"}
    assert {run["state"] for run in status(slurm, out / "tuning").values()} == {"done"}


def test_nodes_and_gpus_are_asked_for(slurm: LocalSlurm, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = REPOSITORY / "jobs" / "digits.yaml"
    size = ("--nodes", "2", "--tasks-per-node", "2", "--gpus-per-node", "1")
    words = ("submit", job, "epochs=2", "algorithm=ssgd", *size, "--run-dir", run)
    done = command(slurm, *words)
    assert done.returncode == 0, done.stderr
    known = slurm.wait(SlurmFolder(run).submissions()[-1].job_id, "COMPLETED", timeout=120)
    assert known["NumNodes"] == "2"
    assert "gres:gpu:1" in known["TresPerNode"]
    assert json.loads((run / "summary.json").read_text())["world_size"] == 4


def test_a_job_that_fails_tells_why(slurm: LocalSlurm, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = REPOSITORY / "jobs" / "cifar10_resnet20.yaml"
    words = ("submit", job, f"data.path={tmp_path}/nowhere", "-n", "2", "--run-dir", run)
    done = command(slurm, *words)
    assert done.returncode == 0, done.stderr
    slurm.wait(SlurmFolder(run).submissions()[-1].job_id, "FAILED", timeout=100)
    found = status(slurm, run)["run"]
    assert found["state"] == "failed"
    assert "DataError" in found["reason"]
    assert "nowhere" in found["reason"]


def test_a_mistake_is_told_and_nothing_is_submitted(slurm: LocalSlurm, tmp_path: Path) -> None:
    job, run = REPOSITORY / "jobs" / "digits.yaml", tmp_path / "run"
    bad = command(slurm, "submit", job, "lrr=1", "-n", "3", "--run-dir", run)
    assert (bad.returncode, "did you mean lr?" in bad.stderr) == (2, True)
    words = ("submit", job, "-n", "3", "--partition", "nope", "--run-dir", run)
    refused = command(slurm, *words)
    assert refused.returncode == 2
    assert "Invalid partition name" in refused.stderr
    assert slurm.run("squeue", "--noheader") == ""
    assert SlurmFolder(run).submissions() == []


def test_names_are_kept_and_the_users_options_win(
    slurm: LocalSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, run = REPOSITORY / "jobs" / "digits.yaml", tmp_path / "it's try #2"
    options = ("--sbatch=--hold", "--sbatch=--no-requeue", "--sbatch=--comment=a #1 'b'")
    words = ("submit", job, "name='lr/0.1 #1'", "-n", "3", "--run-dir", run, *options)
    done = command(slurm, *words)
    assert done.returncode == 0, done.stderr
    job_id = SlurmFolder(run).submissions()[-1].job_id
    known = slurm.job(job_id)
    assert known["JobName"] == "lr/0.1 #1"
    assert known["StdOut"] == f"{run}/slurm/lr_0.1_1-{job_id}.out"
    assert known["Comment"] == "a #1 'b'"
    assert known["Requeue"] == "0"
    assert f"logs:   {run}/slurm/lr_0.1_1-{job_id}.out" in done.stdout
    again = command(slurm, *words)
    assert again.returncode == 2
    assert f"job {job_id} of this folder is PENDING" in again.stderr
    slurm.run("scancel", job_id)
    # What SLURM says of jobs that it does not know is an answer, and no silence.
    for name, value in slurm.env.items():
        monkeypatch.setenv(name, value)
    assert job_states(["987654"]) == Answer()
    assert max_array_size() == 1001
