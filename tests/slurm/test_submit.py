"""``mpi-dcasgd submit`` and ``status`` against a real SLURM."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from local_slurm import LocalSlurm

pytestmark = [pytest.mark.slurm, pytest.mark.mpi, pytest.mark.timeout(240)]

JOB = Path(__file__).parents[2] / "jobs" / "digits.yaml"


@pytest.fixture
def cli(slurm: LocalSlurm, processes: Any) -> Callable[..., Any]:
    """``cli("submit", ...)``: the command's status and output."""

    def run(*words: str | Path) -> Any:
        return processes.run([sys.executable, "-m", "mpi_dcasgd", *words], env=slurm.env)

    return run


def numbers(text: str) -> list[int]:
    """The jobs that ``submit`` names."""
    return [int(number) for number in re.findall(r"job (\d+)", text)]


def test_a_bad_job_is_refused_before_anything_is_submitted(
    slurm: LocalSlurm, cli: Callable[..., Any], tmp_path: Path
) -> None:
    refused = cli("submit", JOB, "batch_size=many", "-n", "3", "--run-dir", tmp_path / "run")
    assert refused.status == 2, refused
    assert "batch_size" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "run").exists()
    assert slurm.jobs() == []


def test_a_job_is_submitted_and_its_end_is_shown(
    slurm: LocalSlurm, cli: Callable[..., Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    size = ("--nodes", "2", "--tasks-per-node", "2", "--gpus-per-node", "1")
    submitted = cli("submit", JOB, "epochs=2", "algorithm=ssgd", *size, "--run-dir", run)
    assert submitted.status == 0, submitted
    (job,) = numbers(submitted.stdout)
    known = slurm.wait(job, "COMPLETED", timeout=120)
    assert known["NumNodes"] == "2"
    assert known["TresPerNode"] == "gres:gpu:1"
    assert str(run) in known["StdOut"]
    assert json.loads((run / "summary.json").read_text())["world_size"] == 4
    shown = cli("status", run)
    assert shown.status == 0, shown
    assert "done" in shown.stdout


def test_a_study_ends_in_its_report_and_what_failed_is_resubmitted_alone(
    slurm: LocalSlurm, cli: Callable[..., Any], tmp_path: Path
) -> None:
    study, out = tmp_path / "small.yaml", tmp_path / "out"
    study.write_text(
        f"job: {JOB}\nalgorithms: [ssgd, asgd]\nworkers: [2]\nseeds: [0]\nset: {{epochs: 2}}\n"
    )
    submitted = cli("submit", study, "--out", out)
    assert submitted.status == 0, submitted
    array, report = numbers(submitted.stdout)
    slurm.wait(f"{array}_0", "RUNNING")
    slurm.cancel(f"{array}_1")
    slurm.wait(report, "FAILED", timeout=120)
    assert "not finished: asgd-w2-s0" in slurm.log(report)
    assert slurm.elements(array) == {0: "COMPLETED", 1: "CANCELLED"}
    assert finished(out) == ["ssgd-w2-s0"]

    submitted = cli("submit", study, "--out", out)
    assert submitted.status == 0, submitted
    assert "1 run" in submitted.stdout
    array, report = numbers(submitted.stdout)
    slurm.wait(report, "COMPLETED", timeout=120)
    assert slurm.elements(array) == {0: "COMPLETED"}
    assert finished(out) == ["asgd-w2-s0", "ssgd-w2-s0"]
    assert "asgd" in (out / "report" / "report.md").read_text()
    again = cli("submit", study, "--out", out)
    assert "no run is left" in again.stdout, again
    assert slurm.jobs() == []


def finished(out: Path) -> list[str]:
    return sorted(file.parent.name for file in out.glob("*/summary.json"))
