"""A study over a real world and its simulated twin, from one command to one report."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(180)]

STUDY = """\
job: digits.yaml
algorithms: [asgd]
workers: [2]
drivers: [real, simulated]
set:
  epochs: 2
  batch_size: 64
  inject: {delays: {model: gamma, mean_s: 0.01}, slow: {1: 3}}
"""


def test_one_study_is_run_really_and_simulated(processes: Any, tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").write_text(Path("jobs/digits.yaml").read_text())
    (tmp_path / "both.yaml").write_text(STUDY)
    out = tmp_path / "out"
    words = ["-m", "mpi_dcasgd", "compare", str(tmp_path / "both.yaml"), "-o", str(out)]
    finished = processes.run([sys.executable, *words], timeout=150)
    assert finished.status == 0, finished
    real, simulated = (
        json.loads((out / name / "summary.json").read_text())
        for name in ("asgd-w2-s0", "asgd-w2-s0-simulated")
    )
    assert (real["driver"], simulated["driver"]) == ("mpi", "simulator")
    assert real["samples"] == simulated["samples"] == 2 * 1437
    cluster = yaml.safe_load((out / "asgd-w2-s0-simulated" / "cluster.yaml").read_text())
    fast, slow = (sum(steps) / len(steps) for steps in cluster["delays"]["steps_s"])
    assert fast >= 0.005  # what was injected is in what was measured: it cannot be less
    assert slow > fast
    report = (out / "report" / "report.md").read_text()
    assert "## Predicted and measured" in report
    assert "| asgd, simulated | 2 | 1 |" in report
    again = processes.run([sys.executable, *words], timeout=60)
    assert again.stdout.count("finished before") == 2, again
